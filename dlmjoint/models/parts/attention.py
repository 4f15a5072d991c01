"""Which columns see which: all of them each other, or block after block."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedConfig

from dlmjoint.errors import ConfigError
from dlmjoint.types import Canvas

KERNELS = ("sdpa", "eager")
"""Attention kernels, by transformers' names, that take a mask of any pattern."""


@dataclass(frozen=True)
class Attention:
    """A base's attention pattern."""

    block_length: int | None = None
    """A column sees its own block of so many columns whole and all blocks before it, counted from the
    row's first real token (SDAR); None: every column sees every other."""

    def __post_init__(self) -> None:
        if self.block_length is not None and self.block_length < 1:
            raise ConfigError(f"block_length is {self.block_length}, expected at least 1")

    def blocks(self, positions: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """The number of every column's block; all are in one where every column sees every other."""
        if self.block_length is None:
            return torch.zeros_like(positions)
        return positions.div(self.block_length, rounding_mode="floor")

    def rest(self, length: int) -> int:
        """How many columns are missing to the end of the block in which a row of so many ends."""
        return 0 if self.block_length is None else -length % self.block_length

    def unsettled(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """The cells whose keys and values a later forward may compute otherwise, although nothing but
        masks is written: the masks themselves, or the blocks from the first on that has one."""
        if self.block_length is None:
            return canvas.masked
        return self.blocks(canvas.positions) >= self.first(canvas)

    def current(self, canvas: Canvas) -> Bool[Tensor, "B L"] | None:
        """The columns of each row's first block with a mask in it; none in a finished row. None where
        there are no blocks."""
        if self.block_length is None:
            return None
        return (self.blocks(canvas.positions) == self.first(canvas)) & canvas.attends

    def first(self, canvas: Canvas) -> Int[Tensor, "B 1"]:
        """The number of each row's first block with a mask in it, or one that is beyond the canvas."""
        blocks = self.blocks(canvas.positions)
        return blocks.masked_fill(~canvas.masked, canvas.tokens.shape[1]).amin(-1, keepdim=True)


def as_mask(
    config: PreTrainedConfig, queries: Float[Tensor, "B W D"], seen: Bool[Tensor, "B W L"]
) -> Tensor:
    """Any pattern in the form the config's attention kernel takes, one of `KERNELS`."""
    seen = seen[:, None].to(queries.device)
    if config._attn_implementation == "sdpa":
        return seen
    hidden = queries.new_full((), torch.finfo(queries.dtype).min)
    return torch.where(seen, queries.new_zeros(()), hidden)
