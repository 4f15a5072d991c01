"""Which cells the next base forward recomputes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from dlmjoint.models.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas


class CachePolicy(ABC):
    """Chooses what every forward renews, row by row."""

    block_length: int | None = None
    """Blocks the response must be decoded in for the cache to make sense; None: it need not."""

    @abstractmethod
    def memory(self) -> CanvasMemory | None:
        """A fresh memory for one canvas, or None where nothing is reused."""

    @abstractmethod
    def renew(
        self, canvas: Canvas, memory: CanvasMemory | None, forward: int
    ) -> Bool[Tensor, "B L"]:
        """The cells to recompute in forward number `forward`; all of them while nothing is held."""


@dataclass(frozen=True)
class NoCache(CachePolicy):
    """Every forward computes every column."""

    def memory(self) -> None:
        """Nothing is kept."""

    def renew(
        self, canvas: Canvas, memory: CanvasMemory | None, forward: int
    ) -> Bool[Tensor, "B L"]:
        """The whole canvas."""
        return torch.ones_like(canvas.attends)
