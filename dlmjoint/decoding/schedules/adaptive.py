"""What schedules share that decide per row, from what the model says, how many tokens to write.

Each is a rule on the next token in the policy's order, given what was written in this forward; the
first token is always written. Cells come one by one, so with a joint sampler the rule reads the
sampler's renewed distribution and with marginals the base's own.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from dlmjoint.decoding.schedule import Schedule
from dlmjoint.errors import ConfigError


@dataclass(frozen=True)
class Adaptive(Schedule):
    """Any number of tokens up to a cap."""

    adaptive: ClassVar[bool] = True

    cap: int | None = field(default=None, kw_only=True)
    """Most tokens per forward; None: no limit."""

    def __post_init__(self) -> None:
        if self.cap is not None and self.cap < 1:
            raise ConfigError(f"cap is {self.cap}, expected at least 1")

    def most(self, length: int) -> int:
        """The cap."""
        return length if self.cap is None else min(self.cap, length)

    def commits(self, forward: int, open_cells: Tensor, masked: Tensor, in_block: Tensor) -> Tensor:
        """What is left, up to the cap."""
        return masked if self.cap is None else masked.clamp(max=self.cap)
