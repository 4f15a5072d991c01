"""SDAR's own schedules: how many tokens of a block a forward writes.

Its strategies are an order and a schedule: `sequential` is `LeftToRight` with `BlockSteady`,
`low_confidence_static` is `HighProbability` with `BlockSteady`, `low_confidence_dynamic` is
`HighProbability` with `BlockThreshold`. The original counts `denoising_steps` per block, which
become tokens per forward here: `tokens_of(block_length, steps)`.

Departure: where a block begins with prompt tokens, the original may ask for more tokens than there
are masks and then writes over the prompt; here a forward writes what there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.schedule import Schedule
from dlmjoint.errors import ConfigError


def tokens_of(block_length: int, steps: int) -> tuple[int, ...]:
    """The tokens of a block's forwards under so many denoising steps, the remainder first.

    Raises ConfigError if a forward would write none.
    """
    if not 1 <= steps <= block_length:
        raise ConfigError(f"steps is {steps}, expected 1 to the block's {block_length} columns")
    each, more = divmod(block_length, steps)
    return tuple(each + (step < more) for step in range(steps))


@dataclass(frozen=True)
class BlockSteady(Schedule):
    """A number of tokens in every forward of a block, or one number after the other."""

    count: int | Sequence[int] = 1
    """Tokens of a block's first, second, ... forward; later ones write as many as the last."""

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1:
            raise ConfigError(f"count is {self.count}, expected at least 1 token per forward")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers."""
        return (self.count,) if isinstance(self.count, int) else tuple(self.count)

    def most(self, length: int) -> int:
        """The greatest number."""
        return min(max(self.counts), length)

    def commits(self, forward: int, open_cells: Tensor, masked: Tensor, in_block: Tensor) -> Tensor:
        """The number, or what is left of the block."""
        return open_cells.minimum(self._planned(in_block))

    def _planned(self, in_block: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        planned = torch.full_like(in_block, self.counts[0])
        for number, count in enumerate(self.counts[1:], 1):
            planned = torch.where(in_block >= number, count, planned)
        return planned


@dataclass(frozen=True)
class BlockThreshold(Schedule):
    """As many tokens of a block as are more probable than a threshold, if they are at least as many
    as a steady schedule writes; else as many as that."""

    adaptive: ClassVar[bool] = True

    count: int = 1
    """Tokens that are written whatever their probability."""
    threshold: float = 0.85
    """A probability."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count is {self.count}, expected at least 1")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}, expected more than 0 and at most 1")

    def commits(self, forward: int, open_cells: Tensor, masked: Tensor, in_block: Tensor) -> Tensor:
        """What is left of the block."""
        return open_cells

    def allows(self, depth: Tensor, cells: Cells, spent: Tensor) -> Tensor:
        """The first ones, and then more than the threshold."""
        return (depth < self.count) | (cells.look.log_best.exp() > self.threshold)
