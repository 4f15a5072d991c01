"""Fast-dLLM (arXiv 2505.22618): block caches that are refreshed at every block's start."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlmjoint.decoding.cache import BlockCache
from dlmjoint.decoding.looks.cells import Grid
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas


@dataclass(frozen=True)
class _RefreshedCache(BlockCache):
    """Compute everything when a row begins a block, less until the block is finished."""

    block_length: int = 32
    """Columns per block (the paper: 32)."""

    def renew(
        self, canvas: Canvas, memory: CanvasMemory | None, forward: int | Int[Tensor, " B"]
    ) -> Bool[Tensor, "B L"]:
        """Everything in the forward after a block was finished, seen from its columns having been
        masks when they were last computed; else what `within` says."""
        assert memory is not None
        if memory.empty:
            return torch.ones_like(canvas.attends)
        block = Grid(self.block_length).first(canvas)
        before = block.cumsum(-1) == 0
        begins = (before & self.stale(canvas, memory)).any(-1, keepdim=True)
        return begins | self.within(block)

    @abstractmethod
    def within(self, block: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """What is recomputed inside a block, given its columns."""


@dataclass(frozen=True)
class PrefixCache(_RefreshedCache):
    """Reuse everything to the left of the block."""

    def within(self, block: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """The block and everything to its right."""
        return block.cumsum(-1) > 0


@dataclass(frozen=True)
class DualCache(_RefreshedCache):
    """Reuse everything but the block itself: the masks to its right too."""

    def within(self, block: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """The block."""
        return block
