"""Who may send drafts back: what decides how many of a forward's tokens stay."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.order import Order
from dlmjoint.decoding.refine import Refine
from dlmjoint.decoding.turn import Turn
from dlmjoint.models.base import Base
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas, Prediction

if TYPE_CHECKING:
    from dlmjoint.decoding.policy import Policy


@dataclass(frozen=True)
class Known:
    """What checking the last drafts has shown of the canvas they left: no forward is needed for it."""

    prediction: Prediction
    """The base's, about this very canvas."""
    number: Int[Tensor, " B"]
    """The forward of decoding token by token that this would be, from 0."""
    owed: Int[Tensor, " B"] | None = None
    """The column that must come next, or -1; None: the order chooses in every row."""

    def take(self, rows: Int[Tensor, " R"]) -> "Known":
        """The same of some rows."""
        prediction = Prediction(self.prediction.hidden[rows], self.prediction.fresh[rows])
        owed = None if self.owed is None else self.owed[rows]
        return replace(self, prediction=prediction, number=self.number[rows], owed=owed)


class Gate(ABC):
    """A guide at work on one canvas; it may keep a memory of it."""

    known: Known | None = None
    """What is known of the canvas as it is now; None: the base must be asked."""

    @abstractmethod
    def check(self, turn: Turn) -> None:
        """Take back the drafts that do not stay (at least one does where there is one), and count what
        that cost, on the turn."""

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
    def begin(
        self, base: Base, canvas: Canvas, policy: "Policy", memory: CanvasMemory | None
    ) -> Gate:
        """A gate for one canvas, on which the loop works with this policy and this memory."""


@dataclass(frozen=True)
class NoGuide(Guide, Gate):
    """Every draft stays."""

    def begin(
        self, base: Base, canvas: Canvas, policy: "Policy", memory: CanvasMemory | None
    ) -> Gate:
        """Itself: there is nothing to remember."""
        return self

    def check(self, turn: Turn) -> None:
        """All of them, at no cost."""

    def keep(self, rows: Int[Tensor, " R"], count: int) -> None:
        """Nothing was remembered."""
