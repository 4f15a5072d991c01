"""How far a folder of trajectories is, whoever draws them, and how long the rest will take."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar
from torch import Tensor

from dlmjoint.trajectories.claims import Claims, Look
from dlmjoint.types import Step

log = logging.getLogger(__name__)

IN_THE_LOG, ON_A_TERMINAL = 60.0, 1.0
"""Seconds between two reports."""


class Progress(L.Callback):
    """A bar on a terminal, a line a minute elsewhere.

    Counted are the shards in the folder, all processes' together, and the tokens of the one this
    process is drawing. Of the others' it sees nothing before they are written, so that the speed of
    several processes is told too low until each has written a few.
    """

    claims: Claims

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console, self.clock = console or Console(stderr=True), clock
        self.drawn: int | Tensor = 0
        self._bar: Bar | None = None
        self._every = ON_A_TERMINAL if self.console.is_terminal else IN_THE_LOG
        self.speaks = False

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count; the first process of those started together speaks."""
        self.speaks = trainer.is_global_zero
        self.begin()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell the end."""
        self.end()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        self._stop()

    def begin(self) -> None:
        """Take the time and what is there already."""
        self.drawn = 0
        self._started, self._first = self.clock(), self._done(self.claims.look())
        self._next = self._started + self._every
        if self.speaks and self.console.is_terminal:
            columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=self.console)
            self._bar.add_task("", total=self._total, completed=self._first)
            self._bar.start()

    def follow(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Pass the steps of one batch through, counting its tokens. A batch that fails is not counted."""
        before = self.drawn
        try:
            for step in steps:
                self.drawn = self.drawn + step.written.sum()  # a number only when it is told
                self.tell()
                yield step
        except BaseException:
            self.drawn = before
            raise

    def written(self) -> None:
        """This process's shard is in the folder and counted there."""
        self.drawn = 0

    def end(self) -> None:
        """The bar is removed, the whole is told once."""
        self._stop()
        if self.speaks:
            log.info("%s", self.told())

    def told(self) -> str:
        """Shards, tokens per second of all processes together, and the time that is left."""
        return self._told(self.claims.look())

    def _told(self, seen: Look) -> str:
        num_shards = self.claims.store.manifest.num_shards
        done, seconds = self._done(seen), self.clock() - self._started
        speed = (done - self._first) / seconds if seconds > 0 else 0.0
        parts = [f"{num_shards - len(seen.missing)} of {num_shards} shards"]
        parts.append(f"{speed:,.0f} tokens/s")
        if seen.missing:
            parts.append(f"{len(seen.claimed)} being drawn")
            if speed > 0:
                left = timedelta(seconds=round((self._total - done) / speed))
                parts.append(f"{done / self._total:.1%}, about {left} left")
        return ", ".join(parts)

    def tell(self) -> None:
        """Report, if it is time to."""
        if not self.speaks or self.clock() < self._next:
            return
        self._next = self.clock() + self._every
        seen = self.claims.look()
        if self._bar is None:
            log.info("%s", self._told(seen))
        else:
            done, told = self._done(seen), self._told(seen)
            self._bar.update(self._bar.task_ids[0], completed=done, description=told)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _done(self, seen: Look) -> int:
        """Tokens in the folder and in this process."""
        manifest = self.claims.store.manifest
        absent = sum(len(manifest.shard_ids(shard)) for shard in seen.missing)
        return (manifest.num_examples - absent) * manifest.max_new_tokens + int(self.drawn)

    @property
    def _total(self) -> int:
        return self.claims.store.manifest.num_examples * self.claims.store.manifest.max_new_tokens
