"""Who may send drafts back: a second model that decides how many of a forward's tokens stay."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.order import Order
from dlmjoint.decoding.refine import Refine
from dlmjoint.decoding.turn import Turn
from dlmjoint.models.base import Base
from dlmjoint.types import Canvas


class Gate(ABC):
    """A guide at work on one canvas; it may keep a memory of it."""

    @abstractmethod
    def check(
        self, before: Canvas, turn: Turn
    ) -> tuple[Int[Tensor, " B"] | None, Int[Tensor, " B"]]:
        """How many of each row's drafts stay (at least one where there is one; None: all of every
        row's), and the guide's forwards spent on the row. `before` is the canvas without the drafts."""

    @abstractmethod
    def keep(self, rows: Int[Tensor, " R"], count: int) -> None:
        """Forget all other rows of `count`, because they are finished."""


class Guide(ABC):
    """A choice of gate."""

    def prepare(self, base: Base) -> "Guide":
        """What the loop uses, with anything heavy loaded and checked against the base."""
        return self

    def alone(self, draw: Draw) -> dict[str, object] | None:
        """The fields of a policy in which the guide writes by itself, if it could."""
        return None

    def fits(self, order: Order, refine: Refine) -> None:
        """Raise ConfigError if drafts made this way cannot be checked."""
        return

    @abstractmethod
    def begin(self, base: Base, canvas: Canvas) -> Gate:
        """A gate for one canvas."""


@dataclass(frozen=True)
class NoGuide(Guide, Gate):
    """Every draft stays."""

    def begin(self, base: Base, canvas: Canvas) -> Gate:
        """Itself: there is nothing to remember."""
        return self

    def check(self, before: Canvas, turn: Turn) -> tuple[Tensor | None, Tensor]:
        """All of them, at no cost."""
        return None, torch.zeros_like(turn.passes)

    def keep(self, rows: Int[Tensor, " R"], count: int) -> None:
        """Nothing was remembered."""
