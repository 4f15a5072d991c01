"""The bundle of choices a decoder makes."""

from dataclasses import dataclass, field, replace

from dlmjoint.decoding.cache import CachePolicy, NoCache
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early import EarlyCommit, Never
from dlmjoint.decoding.order import LowEntropy, Order
from dlmjoint.decoding.refine import Marginals, Refine
from dlmjoint.decoding.schedule import Schedule, Steady
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base


@dataclass(frozen=True)
class Policy:
    """Every choice of a decoder. The defaults draw from the base's exact joint: one token per
    forward. `Policy(4)` is the product of marginals, `Policy(4, refine=Joint(sampler))` the method.
    """

    commits_per_forward: int | Schedule = 1
    """K: tokens written per base forward, or a schedule."""
    order: Order = field(default_factory=LowEntropy)
    """Which column comes next."""
    draw: Draw = field(default_factory=Draw)
    """Which token goes there."""
    refine: Refine = field(default_factory=Marginals)
    """What a commit changes elsewhere."""
    early: EarlyCommit = field(default_factory=Never)
    """When a row is finished at once."""
    cache: CachePolicy = field(default_factory=NoCache)
    """Which columns to recompute."""
    block_length: int | None = None
    """Finish the response in blocks of this many columns, left to right (LLaDA's semi-
    autoregressive decoding); None lets every column be next."""

    def __post_init__(self) -> None:
        if self.block_length is not None and self.block_length < 1:
            raise ConfigError(f"block_length is {self.block_length}, expected at least 1")
        _ = self.schedule  # a bad K is refused now, not at the first forward

    @property
    def schedule(self) -> Schedule:
        """The commits per forward as a schedule."""
        chosen = self.commits_per_forward
        return chosen if isinstance(chosen, Schedule) else Steady(chosen)

    def prepare(self, base: Base) -> "Policy":
        """The policy with ids resolved and anything heavy loaded and checked against the base."""
        return replace(self, draw=self.draw.prepare(base), refine=self.refine.prepare(base))
