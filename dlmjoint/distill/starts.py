"""Where in a trajectory windows may begin."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from dlmjoint.types import Trajectory


class Starts(ABC):
    """The first states a trajectory offers; a batch draws uniformly from those of all of them."""

    @abstractmethod
    def of(self, trajectory: Trajectory, window: int, pad_id: int) -> range:
        """The first states of windows of so many states. A negative one stands for a window that
        began before the trajectory."""


@dataclass(frozen=True)
class EveryState(Starts):
    """Windows may begin before the first state and end after the last, so that every state is an
    equally frequent start of an unroll."""

    def of(self, trajectory: Trajectory, window: int, pad_id: int) -> range:
        """From 2 - window up to the last but one state."""
        return range(2 - window, len(trajectory.order) - 1)


@dataclass(frozen=True)
class WholeWindows(Starts):
    """ADJUST's windows (its `new_preprocess`): whole ones, of states without any padding.

    In Dream padding is the end-of-text, which low-entropy decoding writes early: the late states of
    a short text are then never trained on. A trajectory too short for a window is never drawn.
    """

    until_padding: bool = True
    """End where the first padding token was written."""

    def of(self, trajectory: Trajectory, window: int, pad_id: int) -> range:
        """From 0 up to the last whole window before the padding, or before the finished response."""
        padded = trajectory.response[trajectory.order] == pad_id
        states = len(trajectory.order)
        if self.until_padding and padded.any():
            states = int(padded.long().argmax()) + 1
        return range(max(0, states - window + 1))
