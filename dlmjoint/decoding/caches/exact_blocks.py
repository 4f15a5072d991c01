"""The exact cache of bases that write block after block (SDAR and what follows it)."""

from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from dlmjoint.decoding.cache import CachePolicy
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.parts.attention import Attention
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas


@dataclass(frozen=True)
class ExactBlocks(CachePolicy):
    """Finished blocks keep their keys, values and hidden states; a forward computes the row's block.

    A finished block is computed once more, from its tokens alone, together with the next block's
    first forward: no kept key was computed from a mask, and no forward is spent on it. What lies
    behind the block is not computed, nor is there room for it in memory. The result is that of
    `NoCache`; no block's columns see a later one.
    """

    block_length: int | None = None
    """Columns per block; None: the base's own."""

    @property
    def blocks(self) -> int | None:
        """The base's."""
        return self.block_length

    def prepare(self, base: Base) -> "ExactBlocks":
        """With the base's block length. Only where no column sees a later block is this exact."""
        if base.attention.block_length is None:
            raise ConfigError(
                f"ExactBlocks is for bases that write block after block; in {base.name} every column "
                "sees every other: take FreeCache, or no cache"
            )
        return ExactBlocks(base.attention.block_length)

    def memory(self) -> CanvasMemory:
        """One that grows with the text."""
        return CanvasMemory(growing=True)

    def renew(
        self, canvas: Canvas, memory: CanvasMemory | None, forward: int | Int[Tensor, " B"]
    ) -> Bool[Tensor, "B L"]:
        """The row's first block with a mask in it, and what lies before it and was not kept yet."""
        assert memory is not None
        assert self.block_length is not None, "Policy.prepare(base) takes the base's"
        attention = Attention(self.block_length)
        numbers, first = attention.blocks(canvas.positions), attention.first(canvas)
        if memory.clean is None:
            return numbers <= first
        kept = memory.clean[: len(canvas.tokens)]
        return (numbers == first) | ((numbers < first) & ~kept)
