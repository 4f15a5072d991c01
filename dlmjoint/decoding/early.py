"""When a row is finished at once, and with what."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool
from torch import Tensor

from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.types import Canvas, Commit


class Fill(ABC):
    """Writes everything that is left of some rows, or of their blocks where the base writes block after
    block."""

    needs_sampler: bool = False

    @abstractmethod
    def __call__(self, turn: Turn, rows: Bool[Tensor, " B"], answer: Bool[Tensor, "B L"]) -> None:
        """Fill the rows; `answer` marks the cells whose readiness ended them."""


@dataclass(frozen=True)
class OneShot(Fill):
    """Every mask takes its most probable token, independently (Prophet, Algorithm 1)."""

    def __call__(self, turn: Turn, rows: Bool[Tensor, " B"], answer: Bool[Tensor, "B L"]) -> None:
        """One commit."""
        turn.finished += turn.fill(turn.left & rows[:, None])


@dataclass(frozen=True)
class Coherent(Fill):
    """The rest of a row in the policy's order by sampler passes, so that it is written token given
    token (ours, not in the paper). Where the answer is only a part of what is left, it is written
    first and at once, by the base that was sure of it."""

    tokens_per_pass: int = 1
    """Written between two sampler passes; 1 is the most coherent."""
    needs_sampler = True

    def __post_init__(self) -> None:
        if self.tokens_per_pass < 1:
            raise ConfigError(f"tokens_per_pass is {self.tokens_per_pass}, expected at least 1")

    def __call__(self, turn: Turn, rows: Bool[Tensor, " B"], answer: Bool[Tensor, "B L"]) -> None:
        """As many passes as it takes."""
        partly = rows & (turn.left & ~answer).any(-1)
        known = turn.left & answer & partly[:, None]
        turn.fill(known)
        begun = known.any(-1)  # the base's prediction is out of date there
        finishing, most = turn.ask((turn.left & rows[:, None]).sum(-1))
        for left in range(most, 0, -self.tokens_per_pass):
            stale, _ = turn.ask((begun & (turn.left & rows[:, None]).any(-1)).long())
            if len(stale):
                turn.spend_passes(begun & turn.left.any(-1))
                turn.improve(stale)
            cells = turn.cells(turn.left & rows[:, None], left, finishing)
            for _ in range(self.tokens_per_pass):
                one = turn.first(cells, 1)
                look = one.look
                commit = Commit(one.columns, look.best, look.log_best, one.open, "fill")
                turn.write(commit, finishing)
                masked = turn.canvas.masked[finishing].gather(1, cells.columns)
                cells = cells.opened(cells.open & masked)
            begun = rows
        turn.finished += len(finishing)


class EarlyCommit(ABC):
    """Finishes rows before the forward's own commits."""

    fill: Fill = OneShot()

    def prepare(self, base: Base) -> "EarlyCommit":
        """The same rule with ids resolved."""
        return self

    def watch(self, canvas: Canvas) -> Bool[Tensor, "B L"] | None:
        """The cells whose predictions the rule reads; a cache renews them whatever else it does. None:
        it reads none."""
        return None

    def reads(self, canvas: Canvas) -> Bool[Tensor, "B L"] | None:
        """The cells whose gap between the two greatest raw logits the rule reads, written or not; None:
        it reads none."""
        return None

    @abstractmethod
    def ready(self, turn: Turn) -> Bool[Tensor, " B"]:
        """The rows that have masks left and need no further forward."""

    @abstractmethod
    def finish(self, turn: Turn) -> None:
        """Write everything that is left of the rows that are ready."""


@dataclass(frozen=True)
class Never(EarlyCommit):
    """Every row is decoded to its end."""

    def ready(self, turn: Turn) -> Bool[Tensor, " B"]:
        """None."""
        return torch.zeros_like(turn.canvas.attends[:, 0])

    def finish(self, turn: Turn) -> None:
        """Nothing."""


@dataclass(frozen=True)
class FirstOf(EarlyCommit):
    """Several rules; the first that is ready finishes a row."""

    rules: tuple[EarlyCommit, ...]

    def prepare(self, base: Base) -> "FirstOf":
        """All of them prepared."""
        return FirstOf(tuple(rule.prepare(base) for rule in self.rules))

    def watch(self, canvas: Canvas) -> Bool[Tensor, "B L"] | None:
        """What any of them reads."""
        return _any(rule.watch(canvas) for rule in self.rules)

    def reads(self, canvas: Canvas) -> Bool[Tensor, "B L"] | None:
        """What any of them reads."""
        return _any(rule.reads(canvas) for rule in self.rules)

    def ready(self, turn: Turn) -> Bool[Tensor, " B"]:
        """Those that any of them finishes."""
        return reduce(torch.bitwise_or, [rule.ready(turn) for rule in self.rules])

    def finish(self, turn: Turn) -> None:
        """One after the other."""
        for rule in self.rules:
            rule.finish(turn)


def _any(cells: Iterable[Bool[Tensor, "B L"] | None]) -> Bool[Tensor, "B L"] | None:
    known = [some for some in cells if some is not None]
    return reduce(torch.bitwise_or, known) if known else None
