"""The bundle of choices a decoder makes."""

from dataclasses import dataclass, field, replace

from dlmjoint.decoding.cache import CachePolicy, NoCache
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early import EarlyCommit, Never
from dlmjoint.decoding.forward import Conditional, Forward
from dlmjoint.decoding.guide import Guide, NoGuide
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
    """K: tokens written per base forward, or a schedule; with a guide, the most drafts it is shown."""
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
    guide: Guide = field(default_factory=NoGuide)
    """How many of a forward's tokens stay."""
    forward: Forward = field(default_factory=Conditional)
    """How the base is asked."""
    block_length: int | None = None
    """Finish the response in blocks of this many columns, left to right (LLaDA's semi-
    autoregressive decoding); None: in the cache's blocks if it has any, else every column may be
    next."""

    def __post_init__(self) -> None:
        if self.block_length is not None and self.block_length < 1:
            raise ConfigError(f"block_length is {self.block_length}, expected at least 1")
        _ = self.schedule  # a bad K is refused now, not at the first forward
        cached = self.cache.blocks
        if cached is not None and self.block_length not in (None, cached):
            raise ConfigError(
                f"block_length is {self.block_length}, but the cache works in blocks of {cached}; "
                "leave block_length out"
            )
        if self.early.fill.needs_sampler and not self.refine.passes:
            raise ConfigError(
                f"{type(self.early.fill).__name__} fills a row by sampler passes: give the policy a "
                "sampler (refine), or take OneShot"
            )
        self.guide.fits(self.order, self.refine)

    @property
    def schedule(self) -> Schedule:
        """The commits per forward as a schedule."""
        chosen = self.commits_per_forward
        return chosen if isinstance(chosen, Schedule) else Steady(chosen)

    @property
    def blocks(self) -> int | None:
        """Columns per block, the policy's or its cache's."""
        return self.block_length or self.cache.blocks

    def prepare(self, base: Base) -> "Policy":
        """The policy with ids resolved and anything heavy loaded and checked against the base."""
        refine = self.refine.prepare(base)
        return replace(
            self,
            commits_per_forward=self.schedule.prepare(refine),
            order=self.order.prepare(base),
            draw=self.draw.prepare(base),
            refine=refine,
            early=self.early.prepare(base),
            guide=self.guide.prepare(base),
            forward=self.forward.prepare(base),
        )
