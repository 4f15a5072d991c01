"""Trajectories as training batches: a stream that is a pure function of (seed, batch number)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as MapDataset

from dlmjoint.distill.unroll import UnrollBatch, collate
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.random import derive_seed
from dlmjoint.trajectories.store import Manifest, TrajectoryStore
from dlmjoint.types import Trajectory


class Windows(MapDataset[UnrollBatch]):
    """Batch number t: trajectories and start states drawn uniformly, by (seed, t) alone.

    Every process draws the whole batch and keeps its own rows, so the union over processes is the
    same for any number of them.
    """

    def __init__(
        self,
        trajectories: list[Trajectory],
        manifest: Manifest,
        *,
        batch_size: int,
        window: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.trajectories, self.manifest = trajectories, manifest
        self.batch_size, self.window, self.seed = batch_size, window, seed
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, number: int) -> UnrollBatch:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, number, "windows"))
        size = (self.batch_size,)
        chosen = torch.randint(len(self.trajectories), size, generator=generator)
        steps = self.manifest.max_new_tokens
        starts = torch.randint(2 - self.window, steps - 1, size, generator=generator)
        mine = slice(self.rank, None, self.world_size)
        return collate(
            [self.trajectories[i] for i in chosen[mine].tolist()],
            starts[mine].tolist(),
            self.window,
            self.manifest.mask_id,
            self.manifest.pad_id,
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


class TrajectoryData(L.LightningDataModule):
    """The trajectories of one folder, split into training and validation by example id.

    Training data has no epochs: it is an endless stream, so `trainer.max_steps` ends the run. A
    resumed run continues with the batch after the last one trained on.
    """

    def __init__(
        self,
        path: Path,
        batch_size: int = 32,
        window: int = 6,
        val_fraction: float = 0.05,
        val_batches: int = 8,
        seed: int = 0,
    ) -> None:
        """
        Args:
            path: folder written by `dlmjoint generate`.
            batch_size: trajectories per batch, over all processes.
            window: consecutive states W per trajectory; W - 1 is the deepest unroll.
            val_fraction: share of the trajectories, the last ones, held out.
            val_batches: validation batches.
            seed: of the choice of trajectories and start states.
        """
        super().__init__()
        if window < 2:
            raise ConfigError(f"window is {window}, expected at least 2 states")
        if not 0 < val_fraction < 1:
            raise ConfigError(f"val_fraction is {val_fraction}, expected between 0 and 1")
        self.path, self.batch_size, self.window = path, batch_size, window
        self.val_fraction, self.val_batches, self.seed = val_fraction, val_batches, seed
        self.first_batch = 0
        self.trajectories: list[Trajectory] = []

    def setup(self, stage: str) -> None:
        """Read the trajectories."""
        if self.trajectories:
            return
        self.store = TrajectoryStore.open(self.path)
        if self.window > self.store.manifest.max_new_tokens:
            raise ConfigError(
                f"window is {self.window}, but trajectories have "
                f"{self.store.manifest.max_new_tokens} steps"
            )
        self.trajectories = self.store.trajectories()
        self.held_out = max(1, round(self.val_fraction * len(self.trajectories)))
        if self.held_out >= len(self.trajectories):
            raise DataError(f"{self.path} holds {len(self.trajectories)} trajectories: too few")

    def train_dataloader(self) -> DataLoader[UnrollBatch]:
        """The endless stream, from where a resumed run stopped."""
        windows = self._windows(self.trajectories[: -self.held_out], self.seed)
        return DataLoader(Stream(windows, self.first_batch), batch_size=None)

    def val_dataloader(self) -> DataLoader[UnrollBatch]:
        """The same batches every time."""
        windows = self._windows(self.trajectories[-self.held_out :], derive_seed(self.seed, "val"))
        return DataLoader(Fixed(windows, self.val_batches), batch_size=None)

    def _windows(self, trajectories: list[Trajectory], seed: int) -> Windows:
        assert self.trainer is not None
        world_size = self.trainer.world_size
        if self.batch_size % world_size:
            raise ConfigError(
                f"batch_size is {self.batch_size}, expected a multiple of the {world_size} processes"
            )
        return Windows(
            trajectories,
            self.store.manifest,
            batch_size=self.batch_size,
            window=self.window,
            seed=seed,
            rank=self.trainer.global_rank,
            world_size=world_size,
        )

    def state_dict(self) -> dict[str, Any]:
        """How many batches were trained on."""
        assert self.trainer is not None
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return {"batches": progress.processed}  # pyright: ignore[reportAttributeAccessIssue]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after them."""
        self.first_batch = state_dict["batches"]
