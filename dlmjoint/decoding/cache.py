"""Which columns the next base forward recomputes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from dlmjoint.models.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas


class CachePolicy(ABC):
    """Chooses the window of every forward."""

    @abstractmethod
    def memory(self) -> CanvasMemory | None:
        """A fresh memory for one canvas, or None where nothing is reused."""

    @abstractmethod
    def window(self, canvas: Canvas, memory: CanvasMemory | None) -> slice:
        """The columns to recompute; an empty memory must be filled with all of them."""


@dataclass(frozen=True)
class NoCache(CachePolicy):
    """Every forward computes every column."""

    def memory(self) -> None:
        """Nothing is kept."""

    def window(self, canvas: Canvas, memory: CanvasMemory | None) -> slice:
        """The whole canvas."""
        return slice(0, canvas.tokens.shape[1])
