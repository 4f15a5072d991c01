"""How many tokens a forward commits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.refine import Refine
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base


class Schedule(ABC):
    """A number of commits for every forward, per row."""

    adaptive: ClassVar[bool] = False
    """Whether what the model says decides how many there are: the host must then ask the device."""

    def prepare(self, base: Base, refine: Refine) -> "Schedule":
        """What the loop uses, with what it takes from the base and a loaded sampler."""
        return self

    def most(self, length: int) -> int:
        """More tokens are never committed in a forward over a response of so many columns."""
        return length

    @abstractmethod
    def commits(
        self,
        forward: int,
        open_cells: Int[Tensor, " B"],
        masked: Int[Tensor, " B"],
        in_block: Int[Tensor, " B"],
    ) -> Int[Tensor, " B"]:
        """Most tokens to commit in forward number `forward` (from 0), given each row's cells that
        may be written now, its masks left in all, and the number (from 0) of this forward among
        those about the block the row is in."""

    def price(self, depth: Int[Tensor, "B M"], cells: Cells) -> Float[Tensor, "B M"]:
        """What committing a cell as number `depth` (from 0) of this forward costs of the schedule's
        own budget."""
        return torch.zeros_like(depth, dtype=torch.float64)

    def allows(
        self, depth: Int[Tensor, "B M"], cells: Cells, spent: Float[Tensor, "B M"]
    ) -> Bool[Tensor, "B M"]:
        """Whether a cell should still be committed as number `depth`, given what the row has spent
        before it in this forward. The first commit is made whatever the answer, and none behind one
        that is not. Fixed schedules allow everything."""
        return torch.ones_like(depth, dtype=torch.bool)


@dataclass(frozen=True)
class Steady(Schedule):
    """K tokens every forward (fewer only in a row's last)."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"commits_per_forward is {self.count}, expected at least 1")

    def most(self, length: int) -> int:
        """K."""
        return min(self.count, length)

    def commits(self, forward: int, open_cells: Tensor, masked: Tensor, in_block: Tensor) -> Tensor:
        """K, or what is left; a forward may finish one block and begin the next."""
        return masked.clamp(max=self.count)


@dataclass(frozen=True)
class DreamSchedule(Schedule):
    """Dream's own schedule: a given number of forwards, times from 1 to `eps`, counts rounded down.

    Rounding gives it odd ends: with as many steps as tokens the first forward commits none and
    the last two. Kept for comparison with published numbers; exact sampling is `Steady(1)`.
    """

    steps: int
    """Base forwards in all."""
    eps: float = 1e-3
    """The last time."""
    blocks: int = 1
    """Blocks the response is decoded in: the last forward of each writes all that is left of it
    (FlashDLM's block decoding of Dream)."""

    def __post_init__(self) -> None:
        _per_block(self.steps, self.blocks)

    def commits(self, forward: int, open_cells: Tensor, masked: Tensor, in_block: Tensor) -> Tensor:
        """The share 1 - s/t of all masks left, as far as the block has them."""
        per_block = _per_block(self.steps, self.blocks)
        if forward % per_block == per_block - 1 or forward >= self.steps:
            return open_cells
        stride = (1 - self.eps) / self.steps
        now, later = 1 - forward * stride, 1 - (forward + 1) * stride
        return torch.minimum((masked * (1 - later / now)).long(), open_cells)


@dataclass(frozen=True)
class LladaSchedule(Schedule):
    """LLaDA's transfer schedule: every block takes its share of the forwards and spreads its masks
    over them evenly, the larger counts first."""

    steps: int
    """Base forwards in all."""
    blocks: int = 1
    """Blocks the response is decoded in (response length / block_length)."""

    def __post_init__(self) -> None:
        _per_block(self.steps, self.blocks)

    def commits(self, forward: int, open_cells: Tensor, masked: Tensor, in_block: Tensor) -> Tensor:
        """What is left of the block over the forwards left for it, rounded up."""
        per_block = _per_block(self.steps, self.blocks)
        left = per_block - forward % per_block if forward < self.steps else 1
        return -(-open_cells // left)


def _per_block(steps: int, blocks: int) -> int:
    """Forwards per block. Raises ConfigError if they do not divide."""
    if steps < 1:
        raise ConfigError(f"steps is {steps}, expected at least 1")
    if blocks < 1 or steps % blocks:
        raise ConfigError(f"{steps} steps do not divide into {blocks} blocks")
    return steps // blocks
