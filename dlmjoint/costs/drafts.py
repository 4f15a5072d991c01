"""How many drafts a round should have: what verifying them costs, by arithmetic, against what is accepted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from torch import Tensor

from dlmjoint.costs.arithmetic import H100, Size, forward_flops, measure, pass_flops
from dlmjoint.costs.memory import block_bytes
from dlmjoint.decoding.refine import Refine
from dlmjoint.decoding.schedule import Schedule, Steady
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.transformer import TransformerBase


@dataclass(frozen=True)
class Device:
    """What bounds a forward: arithmetic, reading weights, or launching what it consists of. The defaults
    are an H100 SXM's, by NVIDIA's data sheet, and a launch as a captured graph makes it."""

    flops_per_second: float = H100
    bytes_per_second: float = 3.35e12
    seconds_per_launch: float = 2e-6
    launches_per_layer: int = 20

    def __post_init__(self) -> None:
        if min(self.flops_per_second, self.bytes_per_second) <= 0 or self.seconds_per_launch < 0:
            raise ConfigError(f"{self} is no device: rates must be above 0")

    def seconds(self, flops: float, weights: float, layers: int) -> float:
        """Of so many FLOPs with so many bytes of weights in so many layers: the greatest of the three
        (a roofline: nothing is reckoned for what overlaps badly)."""
        launching = layers * self.launches_per_layer * self.seconds_per_launch
        return max(flops / self.flops_per_second, weights / self.bytes_per_second, launching)


@dataclass(frozen=True)
class Round:
    """What a round of verified decoding costs on a device."""

    size: Size
    device: Device
    rows: int
    """Decoded together."""
    columns: int
    """Computed per canvas: of the window, where a cache leaves the others as they are."""
    length: int
    """Attended to."""
    element: int = 2
    """Bytes of a weight."""

    def seconds(self, canvases: float = 1, passes: float = 0) -> float:
        """Of a forward about so many canvases per row, and of as many sampler passes."""
        columns = self.rows * self.columns
        head = self.size.head * self.element
        forward = self.device.seconds(
            forward_flops(
                self.size, round(columns * canvases), self.length, columns * canvases / 2
            ),
            block_bytes(self.size, self.element) + head,
            self.size.layers,
        )
        passed = self.device.seconds(
            pass_flops(self.size, columns, self.length, columns / 2),
            self.size.layer_matrices * self.element + head,
            1,
        )
        return forward + passes * passed

    def speed_up(self, tokens: float, canvases: float, passes: float) -> float:
        """Over one token per forward, where a round of so much writes so many tokens."""
        return tokens * self.seconds() / self.seconds(canvases, passes)


def expected_tokens(acceptance: Sequence[float], drafts: int) -> float:
    """Of a round: the first is the base's own, each further one stays if all before it did; beyond what
    was measured the last share holds."""
    shares = [acceptance[min(depth, len(acceptance) - 1)] for depth in range(drafts - 1)]
    return 1 + sum(prod(shares[: depth + 1]) for depth in range(len(shares)))


@dataclass(frozen=True)
class BestDrafts(Schedule):
    """As many drafts per round as make a verified decoder fastest on a device, by arithmetic; one where
    more would not pay, which is decoding token by token. For a policy with `Verified`.

    The number is chosen before decoding, from the acceptance that `dlmjoint calibrate` has measured:
    were it to follow what a run accepts, a row would be decoded otherwise in another batch.
    """

    acceptance: tuple[float, ...]
    """Share of drafts at depth 1, 2, ... that stay where all before them did."""
    rows: int = 1
    """Decoded together."""
    columns: int = 256
    """Computed per canvas and forward."""
    length: int | None = None
    """Columns attended to; None: those that are computed."""
    cap: int = 16
    """Drafts at most."""
    device: Device = field(default_factory=Device)
    """An H100 by default."""

    def __post_init__(self) -> None:
        if not self.acceptance or not all(0 <= share <= 1 for share in self.acceptance):
            raise ConfigError(f"acceptance is {self.acceptance}, expected shares from 0 to 1")
        if min(self.rows, self.columns, self.cap) < 1:
            raise ConfigError("rows, columns and cap must be at least 1")

    def prepare(self, base: Base, refine: Refine) -> Steady:
        """The best number. Raises ConfigError for a base whose arithmetic is not known."""
        if not isinstance(base, TransformerBase):
            raise ConfigError(f"the costs of {base.name} are not known: give a number of drafts")
        size = measure(type(base), base.config)
        length = self.length or self.columns
        made = Round(size, self.device, self.rows, self.columns, length)

        def speed_up(drafts: int) -> float:
            passes = refine.passes * (drafts - 1)
            return made.speed_up(expected_tokens(self.acceptance, drafts), drafts, passes)

        return Steady(max(range(1, self.cap + 1), key=speed_up))

    def commits(self, forward: int, open_cells: Tensor, masked: Tensor, in_block: Tensor) -> Tensor:
        """Not before `prepare`."""
        raise RuntimeError("Policy.prepare(base) chooses the number first; generate() does that")
