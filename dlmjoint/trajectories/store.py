"""A folder of trajectories: Parquet shards of fixed content, and a manifest of what they are.

A shard is written under a temporary name and renamed, so a shard that exists is whole; what is
missing can be drawn again by anyone, in any number of processes.
"""

import json
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Value, concatenate_datasets
from datasets import Sequence as ListOf
from datasets.exceptions import DatasetGenerationError
from filelock import SoftFileLease
from pyarrow import parquet

from dlmjoint.disk.atomic import sweep, whole
from dlmjoint.disk.provenance import write_json
from dlmjoint.errors import DataError, MismatchError
from dlmjoint.models.base import Base
from dlmjoint.types import Trajectory

FEATURES = Features(
    {
        "example_id": Value("int64"),
        "prompt_ids": ListOf(Value("int32")),
        "response_ids": ListOf(Value("int32")),
        "order": ListOf(Value("int32")),
        "log_probs": ListOf(Value("float32")),
    }
)
"""`order[s]` is the response column written by commit s; the state at step t is the response with
`order[t:]` masked. Log-probabilities are rounded to float32: a base's logits are no finer."""
REPEATING: Any = [f"{name}.list.element" for name in ("prompt_ids", "response_ids", "order")]
"""Columns whose values come again and again: a table of them is shorter than they are. Of
log-probabilities it would be longer. (pyarrow's annotation knows True and False only.)"""

LEASE = 120.0
"""Seconds after which a marker file nobody touches is no longer held; its holder touches it three
times as often."""


@dataclass(frozen=True)
class Manifest:
    """What a folder of trajectories was drawn from; a folder holds one kind only."""

    base: str
    base_revision: str | None
    base_fingerprint: str
    mask_id: int
    eos_id: int
    pad_id: int
    policy: str
    seed: int
    max_new_tokens: int
    num_examples: int
    shard_size: int
    prompts: str
    """Hash of all prompt ids."""

    def shard_ids(self, shard: int) -> range:
        """The example ids of a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.num_examples))

    @property
    def num_shards(self) -> int:
        """How many shards make the folder complete."""
        return -(-self.num_examples // self.shard_size)


class TrajectoryStore:
    """The shards of one folder."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> "TrajectoryStore":
        """The folder's store; a new folder gets the manifest, an old one must have the same.

        Raises MismatchError that names what differs.
        """
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with SoftFileLease(folder / ".manifest.lock", lease_duration=LEASE):
            if not (folder / "manifest.json").exists():
                write_json(folder / "manifest.json", asdict(manifest))
        found, wanted = asdict(cls.open(folder).manifest), asdict(manifest)
        differing = {key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]}
        if differing:
            told = ", ".join(f"{k}: {a!r} there, {b!r} asked" for k, (a, b) in differing.items())
            raise MismatchError(
                f"{folder} already holds other trajectories ({told}); choose another folder"
            )
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path) -> "TrajectoryStore":
        """An existing store. Raises DataError if there is none, or its manifest is unreadable."""
        path = folder / "manifest.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(f"{folder} is no folder of trajectories: {error}") from error
        known = {field.name for field in fields(Manifest)}
        if set(values) != known:
            raise DataError(f"{path} has other keys than expected: {sorted(set(values) ^ known)}")
        return cls(folder, Manifest(**values))

    def path(self, shard: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"shard-{shard:05d}.parquet"

    def names(self) -> set[str]:
        """What is in the folder, by one look: it may be far away."""
        return {path.name for path in self.folder.iterdir()}

    def missing(self, names: Container[str] | None = None) -> list[int]:
        """The shards still to be drawn, by a look at the folder or by what one has shown."""
        there = self.names() if names is None else names
        return [s for s in range(self.manifest.num_shards) if self.path(s).name not in there]

    def write(self, shard: int, trajectories: Sequence[Trajectory]) -> None:
        """Write one whole shard, in order of example ids."""
        trajectories = sorted(trajectories, key=lambda trajectory: trajectory.example_id)
        found = [trajectory.example_id for trajectory in trajectories]
        assert found == list(self.manifest.shard_ids(shard)), f"shard {shard} is not whole"
        rows = Dataset.from_list([_row(t) for t in trajectories], features=FEATURES)
        table = rows.data.table
        with whole(self.path(shard)) as temporary:
            parquet.write_table(table, temporary, compression="zstd", use_dictionary=REPEATING)

    def check(self, base: Base) -> None:
        """Raise MismatchError unless the trajectories were drawn from this base."""
        if self.manifest.base_fingerprint != base.fingerprint:
            raise MismatchError(
                f"{self.folder} was drawn from {self.manifest.base} (weights "
                f"{self.manifest.base_fingerprint}), not from {base.name} ({base.fingerprint})"
            )

    def read(self) -> Dataset:
        """All trajectories as a `datasets` table.

        Raises DataError if shards are missing or one cannot be read, naming it.
        """
        missing = self.missing()
        if missing:
            raise DataError(
                f"{self.folder} lacks {len(missing)} of {self.manifest.num_shards} shards "
                f"(the first: {self.path(missing[0]).name}); run generate again to draw them"
            )
        return concatenate_datasets([self._read(s) for s in range(self.manifest.num_shards)])

    def _read(self, shard: int) -> Dataset:
        path = self.path(shard)
        try:
            rows = Dataset.from_parquet(str(path), keep_in_memory=True)
        except (OSError, ValueError, DatasetGenerationError) as error:
            cause = error.__cause__ or error
            raise DataError(
                f"{path} is damaged ({cause}); delete it and run generate again"
            ) from error
        assert isinstance(rows, Dataset)
        if rows["example_id"][:] != list(self.manifest.shard_ids(shard)):
            raise DataError(f"{path} holds other examples than its manifest says; delete it")
        return rows

    def trajectories(self) -> list[Trajectory]:
        """All trajectories as objects; for a test set, not for millions."""
        return [_trajectory(row) for row in self.read()]


def _row(trajectory: Trajectory) -> dict[str, object]:
    return {
        "example_id": trajectory.example_id,
        "prompt_ids": trajectory.prompt.tolist(),
        "response_ids": trajectory.response.tolist(),
        "order": trajectory.order.tolist(),
        "log_probs": trajectory.log_probs.tolist(),
    }


def _trajectory(row: object) -> Trajectory:
    assert isinstance(row, dict)
    ids = {key: torch.tensor(row[f"{key}_ids"]) for key in ("prompt", "response")}
    return Trajectory(
        example_id=row["example_id"],
        order=torch.tensor(row["order"]),
        log_probs=torch.tensor(row["log_probs"], dtype=torch.float64),
        **ids,
    )
