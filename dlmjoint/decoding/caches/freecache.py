"""FreeCache (FlashDLM, arXiv 2505.21467): what is finished keeps its keys, values and hidden states."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlmjoint.decoding.cache import BlockCache
from dlmjoint.decoding.looks.cells import Grid
from dlmjoint.errors import ConfigError
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas


@dataclass(frozen=True)
class FreeCache(BlockCache):
    """Recompute the row's current block and everything to its right; freeze what lies to its left.

    Published, a block is frozen as its own last forward computed it, in which its last tokens were
    still masks. `delayed` (ours) recomputes a finished block once more before it is frozen, so that
    no frozen key was computed from a mask. A joint sampler attends to the frozen columns' hidden
    states, which are kept beside their keys.
    """

    block_length: int = 32
    """Columns per block; the paper studies 32 and 64."""
    delayed: bool = True
    """Freeze one forward later than published."""
    refresh: int | None = None
    """Recompute everything every so many forwards; None: never, as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refresh is not None and self.refresh < 1:
            raise ConfigError(f"refresh is {self.refresh}, expected at least 1")

    def renew(
        self, canvas: Canvas, memory: CanvasMemory | None, forward: int | Int[Tensor, " B"]
    ) -> Bool[Tensor, "B L"]:
        """From the frontier to the canvas's end."""
        assert memory is not None
        everything = torch.ones_like(canvas.attends)
        if memory.empty:
            return everything
        start = Grid(self.block_length).first(canvas)
        if self.delayed:
            # A column that was a mask when computed pulls its whole block back into the window.
            written = self.stale(canvas, memory) & ~canvas.masked
            start = start | self.blocks_with(canvas, written)
        window = start.cumsum(-1) > 0
        if self.refresh is None:
            return window
        number = torch.zeros_like(canvas.tokens[:, 0]) + forward
        return window | (number % self.refresh == 0)[:, None]
