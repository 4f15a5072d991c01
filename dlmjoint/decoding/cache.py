"""Which cells the next base forward recomputes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas


class CachePolicy(ABC):
    """Chooses what every forward renews, row by row."""

    @property
    def blocks(self) -> int | None:
        """Length of the blocks the response must be decoded in; None: it need not be."""
        return None

    def prepare(self, base: Base) -> "CachePolicy":
        """The same cache with what it takes from the base. Raises ConfigError if it is none for it."""
        return self

    @abstractmethod
    def memory(self) -> CanvasMemory | None:
        """A fresh memory for one canvas, or None where nothing is reused."""

    @abstractmethod
    def renew(
        self, canvas: Canvas, memory: CanvasMemory | None, forward: int | Int[Tensor, " B"]
    ) -> Bool[Tensor, "B L"]:
        """The cells to recompute in forward number `forward` (of every row, if they are not in the same
        one); all of them while nothing is held."""


@dataclass(frozen=True)
class NoCache(CachePolicy):
    """Every forward computes every column."""

    def memory(self) -> None:
        """Nothing is kept."""

    def renew(
        self, canvas: Canvas, memory: CanvasMemory | None, forward: int | Int[Tensor, " B"]
    ) -> Bool[Tensor, "B L"]:
        """The whole canvas."""
        return torch.ones_like(canvas.attends)


@dataclass(frozen=True)
class BlockCache(CachePolicy):
    """A cache that follows the blocks the response is decoded in."""

    block_length: int = 32
    """Columns per block."""

    def __post_init__(self) -> None:
        if self.block_length < 1:
            raise ConfigError(f"block_length is {self.block_length}, expected at least 1")

    @property
    def blocks(self) -> int:
        """The cache's own."""
        return self.block_length

    def prepare(self, base: Base) -> "BlockCache":
        """Itself, for a base in which every column sees every other."""
        if base.attention.block_length is not None:
            raise ConfigError(
                f"{type(self).__name__} approximates what {base.name}, which writes block after block, "
                "has exactly: take ExactBlocks"
            )
        return self

    def memory(self) -> CanvasMemory:
        """Keys, values and hidden states of the canvas."""
        return CanvasMemory()

    def stale(self, canvas: Canvas, memory: CanvasMemory) -> Bool[Tensor, "B L"]:
        """The cells that were masks when they were last computed. (Under classifier-free guidance
        the memory holds the rows without their prompts too, behind the canvas's own.)"""
        assert memory.clean is not None
        return ~memory.clean[: len(canvas.tokens)]

    def blocks_with(self, canvas: Canvas, cells: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """All columns of the response blocks that hold one of these cells."""
        length = canvas.response.stop - canvas.response.start
        blocks = cells[:, canvas.response]
        padded = torch.nn.functional.pad(blocks, (0, -length % self.block_length))
        whole = padded.unflatten(-1, (-1, self.block_length)).any(-1, keepdim=True)
        found = torch.zeros_like(cells)
        found[:, canvas.response] = whole.expand(-1, -1, self.block_length).flatten(1)[:, :length]
        return found
