"""An order, and a policy whose defaults use it."""

from dataclasses import dataclass, field

from torch import Tensor

from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.order import Order
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.schedule import Schedule
from dlmjoint.errors import ConfigError
from dlmjoint.random import Noise


@dataclass(frozen=True)
class Strided(Order):
    """Columns that lie `stride` apart, then those behind them, and so on: 0, 4, 8, …, 1, 5, 9, …"""

    stride: int = 4
    """Columns from one to the next."""

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ConfigError(f"stride is {self.stride}, expected 1 or more")

    def rank(self, cells: Cells, noise: Noise) -> Tensor:
        """The greatest for what comes first; a tie is the left-most column's."""
        return -(cells.places % self.stride).double()


@dataclass(frozen=True)
class Strides(Policy):
    """Four tokens per forward, from columns that lie apart."""

    commits_per_forward: int | Schedule = 4
    """K: tokens written per base forward."""
    order: Order = field(default_factory=Strided)
    """Which column comes next."""
