"""Who draws which shard: claim files beside the shards, so that processes need not know each other.

A claim is a file that only one process can create. Its owner touches it as it draws and removes it
when the shard is written; once the owner is dead or silent, anyone may take it over. So any number
of processes, on any number of machines that share the folder, may join, die and start again.

Should two processes draw the same shard after all (the owner was slow, not dead), no harm is done:
they write the same content, each by one rename.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dlmjoint.disk.atomic import beside, host, is_dead
from dlmjoint.trajectories.store import TrajectoryStore

BEATS = 10
"""Signs of life per timeout. Network file systems may show a touch up to a minute late."""
POLL = 2.0
"""Seconds between two looks at most, while all that is left is being drawn by others."""


@dataclass
class Claim:
    """One shard that is this process's to draw; leaving it as a context gives it back."""

    shard: int
    path: Path
    owner: str
    interval: float
    """Seconds between two touches."""
    touched: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """Show that work goes on; call it at least once per base forward.

        The work itself beats, not a thread beside it: a process that hangs loses its claim.
        """
        if time.monotonic() - self.touched > self.interval:
            with suppress(FileNotFoundError):  # taken over, and done, while this process was slow
                os.utime(self.path)
            self.touched = time.monotonic()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(FileNotFoundError):
            if self.path.read_text() == self.owner:  # else it was taken over
                self.path.unlink()


@dataclass(frozen=True)
class Look:
    """What one look at a folder shows."""

    missing: list[int]
    """The shards still to be drawn."""
    claimed: list[int]
    """Those of them that somebody draws, this process or another."""


class Claims:
    """The claims on one folder's shards, as one process sees them."""

    def __init__(self, store: TrajectoryStore, timeout: float) -> None:
        """`timeout`: seconds after its last sign of life until a claim may be taken over."""
        self.store, self.timeout = store, timeout
        self.host = host()
        self.owner = json.dumps({"host": self.host, "pid": os.getpid()})

    def take(self, waiting: Callable[[], None]) -> Claim | None:
        """A shard to draw; None when every shard is there.

        Where others draw all that is left, it waits for them, so that what a dead one leaves is
        drawn; `waiting` is called at every look.
        """
        while (seen := self.look()).missing:
            for shard in self._free(seen):
                claim = self._claim(shard)
                if claim is not None:
                    return claim
            waiting()
            time.sleep(min(POLL, self.timeout / BEATS))
        return None

    def clear(self) -> None:
        """Remove claims on finished shards: of processes killed between writing and giving back."""
        for shard in set(range(self.store.manifest.num_shards)) - set(self.store.missing()):
            self._path(shard).unlink(missing_ok=True)

    def look(self) -> Look:
        """The folder at this moment."""
        names = self.store.names()
        missing = self.store.missing(names)
        return Look(missing, [shard for shard in missing if self._path(shard).name in names])

    def _path(self, shard: int) -> Path:
        return self.store.folder / f".shard-{shard:05d}.claim"

    def _free(self, seen: Look) -> Iterator[int]:
        """The missing shards nobody claims; then those whose claims were abandoned."""
        yield from sorted(set(seen.missing) - set(seen.claimed))
        if seen.claimed:
            now = _now(self.store.folder)
            yield from (shard for shard in seen.claimed if self._abandoned(shard, now))

    def _claim(self, shard: int) -> Claim | None:
        """The claim, unless another process was faster."""
        path = self._path(shard)
        try:
            with path.open("x") as file:
                file.write(self.owner)
        except FileExistsError:
            return None
        claim = Claim(shard, path, self.owner, self.timeout / BEATS)
        if self.store.path(shard).exists():  # finished since the folder was looked at
            with claim:
                return None
        return claim

    def _abandoned(self, shard: int, now: float) -> bool:
        """Is the owner dead or silent? Its claim is removed then."""
        path = self._path(shard)
        try:
            owner, beat = path.read_text(), path.stat().st_mtime
        except FileNotFoundError:
            return True  # given back at this moment
        if now - beat <= self.timeout and not self._dead(owner):
            return False
        path.unlink(missing_ok=True)
        return True

    def _dead(self, owner: str) -> bool:
        """Is the owner known to be dead? Of other machines nothing is known, nor of a claim whose
        owner has just created it and not yet written its name."""
        if not owner:
            return False
        found = json.loads(owner)
        if found["host"] != self.host:
            return False
        return is_dead(found["pid"])


def _now(folder: Path) -> float:
    """The time by the clock of the folder's file system, which may be another machine's."""
    with beside(folder / "now") as probe:
        probe.touch()
        return probe.stat().st_mtime
