"""Bytes per stored trajectory, against the N states of N tokens that the paper's code keeps."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dlmjoint.bench.full_size import lengths_held
from dlmjoint.bench.on_base import OnBase
from dlmjoint.bench.stand_ins.trajectories import random_store
from dlmjoint.bench.suite import Setting
from dlmjoint.models.transformer import TransformerBase

EXAMPLES = 256
"""Trajectories in the folder: a shard, as `dlmjoint generate` writes them."""
STATES = {"int64, as datasets keeps Python's": 8, "int32": 4}
"""Bytes of a token in the paper's history of states: what its code writes, and the least it could."""


class Storage(OnBase):
    """Tokens, order and log-probabilities in a Parquet shard and its manifest. The tokens are random,
    which compress worse than text; the states are counted, uncompressed."""

    name = "storage"

    def points(
        self, base: TransformerBase, setting: Setting, note: Callable[[str], None]
    ) -> Iterator[dict[str, Any]]:
        """A record per length."""
        for length in lengths_held(setting.lengths, base.max_length):
            note(f"storage, length {length}")
            columns = length - 1
            with tempfile.TemporaryDirectory(dir=setting.workdir) as folder:
                store = random_store(base, Path(folder), EXAMPLES, columns)
                written = sum(path.stat().st_size for path in store.folder.iterdir())
            sizes: dict[str, float] = {
                f"N² states ({kind})": size * columns**2 for kind, size in STATES.items()
            }
            sizes["a stored trajectory"] = written / EXAMPLES
            largest = max(sizes.values())
            yield {
                "length": length,
                "measured": {
                    name: {"bytes": size, "bytes_ratio": largest / size}
                    for name, size in sizes.items()
                },
            }
