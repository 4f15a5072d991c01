"""Trajectories as training batches: a stream that is a pure function of (seed, batch number)."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as MapDataset

from dlmjoint.distill.fit_data import FitData
from dlmjoint.distill.starts import EveryState, Starts
from dlmjoint.distill.unrolling.blocks import by_blocks
from dlmjoint.distill.unrolling.unroll import UnrollBatch, collate
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.models.base import Base
from dlmjoint.random import derive_seed
from dlmjoint.trajectories.store import Manifest, TrajectoryStore
from dlmjoint.types import Trajectory


class Windows(MapDataset[UnrollBatch]):
    """Batch number t: one source, then its trajectories and start states, drawn uniformly by
    (seed, t) alone.

    A source - the trajectories of one folder - is drawn by its share of all trajectories; a batch
    is of one source, since folders may differ in length. Every process draws the whole batch and
    keeps its own rows, so the union over processes is the same for any number of them.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[Trajectory]],
        manifest: Manifest,
        *,
        batch_size: int,
        window: int,
        seed: int,
        starts: Starts | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.sources, self.manifest = sources, manifest
        self.batch_size, self.window, self.seed = batch_size, window, seed
        self.rank, self.world_size = rank, world_size
        chosen = starts or EveryState()
        self.starts = [
            [chosen.of(trajectory, window, manifest.pad_id) for trajectory in source]
            for source in sources
        ]
        self.ends = [torch.tensor([len(s) for s in starts]).cumsum(0) for starts in self.starts]
        if not all(int(ends[-1]) for ends in self.ends):
            raise DataError(f"no trajectory has a window of {window} states that {chosen} allows")

    def __getitem__(self, number: int) -> UnrollBatch:
        seed = derive_seed(self.seed, number, "windows")
        generator = torch.Generator().manual_seed(seed)
        sizes = torch.tensor([len(source) for source in self.sources], dtype=torch.float64)
        source = int(sizes.multinomial(1, generator=generator))
        ends = self.ends[source]
        drawn = torch.randint(int(ends[-1]), (self.batch_size,), generator=generator)
        places = tuple(range(self.batch_size))[self.rank :: self.world_size]
        mine = drawn[list(places)]
        chosen = torch.searchsorted(ends, mine, right=True).tolist()
        starts = [
            self.starts[source][i][int(d - ends[i])] for i, d in zip(chosen, mine, strict=True)
        ]
        return collate(
            [self.sources[source][i] for i in chosen],
            starts,
            self.window,
            self.manifest.mask_id,
            self.manifest.pad_id,
            seed,
            places,
        )


class Stream(IterableDataset[UnrollBatch]):
    """Batches from a given number on, without end."""

    def __init__(self, windows: Windows, start: int) -> None:
        self.windows, self.start = windows, start

    def __iter__(self) -> Iterator[UnrollBatch]:
        number = self.start
        while True:
            yield self.windows[number]
            number += 1


class Fixed(MapDataset[UnrollBatch]):
    """The first `count` batches: a validation set that never changes."""

    def __init__(self, windows: Windows, count: int) -> None:
        self.windows, self.count = windows, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> UnrollBatch:
        if number >= self.count:
            raise IndexError(number)
        return self.windows[number]


class TrajectoryData(FitData):
    """The trajectories of one or more folders, each split into training and validation by example
    id."""

    def __init__(
        self,
        path: Path | list[Path],
        batch_size: int = 32,
        window: int = 6,
        val_fraction: float = 0.05,
        val_batches: int = 8,
        seed: int = 0,
        starts: Starts | None = None,
    ) -> None:
        """
        Args:
            path: folder written by `dlmjoint generate`, or several: batches then come from each by
                its share of the trajectories.
            batch_size: trajectories per batch, over all processes.
            window: consecutive states W per trajectory; W - 1 is the deepest unroll.
            val_fraction: share of the trajectories, the last ones, held out.
            val_batches: validation batches.
            seed: of the choice of trajectories and start states.
            starts: where windows may begin: so that all states are alike by default.
        """
        super().__init__(batch_size, window, val_batches, seed)
        if not 0 < val_fraction < 1:
            raise ConfigError(f"val_fraction is {val_fraction}, expected between 0 and 1")
        self.paths = path if isinstance(path, list) else [path]
        if not self.paths:
            raise ConfigError("path names no folder of trajectories")
        self.val_fraction, self.starts = val_fraction, starts
        self.sources: list[list[Trajectory]] = []
        self.block_length: int | None = None
        """Of the base, where it writes block after block."""
        self.end_ids: tuple[int, ...] = ()

    def setup(self, stage: str) -> None:
        """Read the trajectories. Raises DataError if a folder holds too few, ConfigError if they are
        shorter than a window."""
        if self.sources:
            return
        self.stores = [TrajectoryStore.open(path) for path in self.paths]
        for store in self.stores:
            trajectories = store.trajectories()
            if self._held_out(trajectories) >= len(trajectories):
                raise DataError(f"{store.folder} holds {len(trajectories)} trajectories: too few")
            steps = len(trajectories[0].order)
            if self.window > steps:
                raise ConfigError(
                    f"window is {self.window}, but trajectories of {store.folder} have {steps} steps"
                )
            self.sources.append(trajectories)

    def check(self, base: Base) -> None:
        """Raise MismatchError unless every folder was drawn from this base. Where it writes block after
        block, windows are those of its blocks; raises ConfigError if they are longer."""
        for store in self.stores:
            store.check(base)
        length = base.attention.block_length
        if length is None or self.block_length is not None:
            return
        if self.window > length + 1:
            raise ConfigError(
                f"window is {self.window}, but a block of {base.name} has {length + 1} states"
            )
        self.block_length, self.end_ids = length, base.end_ids

    def _held_out(self, trajectories: Sequence[Trajectory]) -> int:
        return max(1, round(self.val_fraction * len(trajectories)))

    def train_dataloader(self) -> DataLoader[UnrollBatch]:
        """The endless stream, from where a resumed run stopped."""
        kept = [source[: -self._held_out(source)] for source in self.sources]
        return DataLoader(Stream(self._windows(kept, self.seed), self.first_batch), batch_size=None)

    def val_dataloader(self) -> DataLoader[UnrollBatch]:
        """The same batches every time."""
        kept = [source[-self._held_out(source) :] for source in self.sources]
        windows = self._windows(kept, derive_seed(self.seed, "val"))
        return DataLoader(Fixed(windows, self.val_batches), batch_size=None)

    def _windows(self, sources: Sequence[Sequence[Trajectory]], seed: int) -> Windows:
        rank, world_size = self.processes
        if self.block_length is not None:
            sources = [by_blocks(source, self.block_length, self.end_ids) for source in sources]
        return Windows(
            sources,
            self.stores[0].manifest,
            batch_size=self.batch_size,
            window=self.window,
            seed=seed,
            starts=self.starts,
            rank=rank,
            world_size=world_size,
        )

    def stream(self) -> dict[str, str]:
        """All that batch number t depends on but t; folders by their content, wherever they lie."""
        names = ("batch_size", "window", "val_fraction", "seed")
        chosen = {name: str(getattr(self, name)) for name in names}
        drawn = [asdict(replace(store.manifest, base="")) for store in self.stores]
        content = hashlib.sha256(repr(drawn).encode()).hexdigest()[:16]
        return {**chosen, "starts": repr(self.starts or EveryState()), "trajectories": content}
