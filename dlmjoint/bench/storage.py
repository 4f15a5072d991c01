"""Bytes per stored trajectory, against the N states of N tokens that the paper's code keeps."""

from collections.abc import Callable, Iterator
from typing import Any

from dlmjoint.bench.fit_step import random_trajectories
from dlmjoint.bench.random_base import folder_of
from dlmjoint.bench.suite import Setting, Suite
from dlmjoint.models.load import load_base

EXAMPLES = 256
"""Trajectories in the folder: a shard, as `dlmjoint generate` writes them."""


class Storage(Suite):
    """Tokens and order in Parquet shards, on random tokens, which compress worse than text."""

    name = "storage"

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """A record per model."""
        for model in setting.models:
            note(f"{model}: storage")
            base = load_base(folder_of(model, setting, note), setting.device, setting.dtype)
            store = random_trajectories(base, setting.workdir / "stored", EXAMPLES)
            columns = store.manifest.max_new_tokens
            written = sum(path.stat().st_size for path in store.folder.iterdir()) / EXAMPLES
            states = {"int64, as datasets keeps Python's": 8, "int32": 4}
            sizes: dict[str, float] = {
                f"N² states ({kind})": size * columns**2 for kind, size in states.items()
            }
            sizes["a stored trajectory"] = written
            largest = max(sizes.values())
            yield {
                "model": model,
                "point": "storage",
                "length": columns + 1,
                "measured": {
                    name: {"peak_bytes": size, "bytes_ratio": largest / size}
                    for name, size in sizes.items()
                },
            }
