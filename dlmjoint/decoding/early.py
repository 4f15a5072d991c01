"""When a row is finished at once, and with what."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.types import Canvas


class Fill(ABC):
    """Writes everything that is left of some rows."""

    needs_sampler: bool = False

    @abstractmethod
    def __call__(self, turn: Turn, rows: Bool[Tensor, " B"], answer: Bool[Tensor, "B L"]) -> None:
        """Fill the rows; `answer` marks the cells whose readiness ended them."""


@dataclass(frozen=True)
class OneShot(Fill):
    """Every mask takes its most probable token, independently (Prophet, Algorithm 1)."""

    def __call__(self, turn: Turn, rows: Bool[Tensor, " B"], answer: Bool[Tensor, "B L"]) -> None:
        """One commit."""
        turn.fill(turn.canvas.masked & rows[:, None])


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
        partly = rows & (turn.canvas.masked & ~answer).any(-1)
        known = turn.canvas.masked & answer & partly[:, None]
        turn.fill(known)
        begun = known.any(-1)  # the base's prediction is out of date there
        while bool((left := turn.canvas.masked & rows[:, None]).any()):
            if bool((stale := begun & left.any(-1)).any()):
                turn.improve(stale)
            for _ in range(self.tokens_per_pass):
                left = turn.canvas.masked & rows[:, None]
                cells = turn.next(rows, left)
                chosen = torch.zeros_like(left)
                chosen[cells.rows, cells.columns] = True
                turn.fill(chosen)
            begun = rows


class EarlyCommit(ABC):
    """Finishes rows before the forward's own commits."""

    fill: Fill = OneShot()

    def prepare(self, base: Base) -> "EarlyCommit":
        """The same rule with ids resolved."""
        return self

    def watch(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """The cells whose predictions the rule reads; a cache renews them whatever else it does."""
        return torch.zeros_like(canvas.attends)

    @abstractmethod
    def finish(self, turn: Turn) -> None:
        """Write everything that is left of the rows that are ready."""


@dataclass(frozen=True)
class Never(EarlyCommit):
    """Every row is decoded to its end."""

    def finish(self, turn: Turn) -> None:
        """Nothing."""


@dataclass(frozen=True)
class FirstOf(EarlyCommit):
    """Several rules; the first that is ready finishes a row."""

    rules: tuple[EarlyCommit, ...]

    def prepare(self, base: Base) -> "FirstOf":
        """All of them prepared."""
        return FirstOf(tuple(rule.prepare(base) for rule in self.rules))

    def watch(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """What any of them reads."""
        found = torch.zeros_like(canvas.attends)
        for rule in self.rules:
            found |= rule.watch(canvas)
        return found

    def finish(self, turn: Turn) -> None:
        """One after the other."""
        for rule in self.rules:
            rule.finish(turn)
