"""How many tokens a forward commits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from dlmjoint.errors import ConfigError


class Schedule(ABC):
    """A number of commits for every forward, per row."""

    @abstractmethod
    def commits(self, forward: int, masked: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Tokens to commit in forward number `forward` (from 0), given each row's masks left."""


@dataclass(frozen=True)
class Steady(Schedule):
    """K tokens every forward (fewer only in a row's last)."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"commits_per_forward is {self.count}, expected at least 1")

    def commits(self, forward: int, masked: Tensor) -> Tensor:
        """K, or what is left."""
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

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}, expected at least 1")

    def commits(self, forward: int, masked: Tensor) -> Tensor:
        """The share 1 - s/t of the masks left, all of them in the last forward."""
        if forward >= self.steps - 1:
            return masked
        stride = (1 - self.eps) / self.steps
        now, later = 1 - forward * stride, 1 - (forward + 1) * stride
        return (masked * (1 - later / now)).long()
