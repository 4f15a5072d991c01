"""The bundle of choices a decoder makes."""

from dataclasses import dataclass, field, replace

from dlmjoint.decoding.cache import CachePolicy, NoCache
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early import EarlyCommit, FirstOf, Never
from dlmjoint.decoding.early_rules.end_of_text import AtEnd
from dlmjoint.decoding.forward import Conditional, Forward
from dlmjoint.decoding.guide import Guide, NoGuide
from dlmjoint.decoding.looks.cells import Grid
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
    """When a row is finished at once. Bases that write block after block also stop at the end of a
    text, whatever is said here: how many tokens were asked for is then a bound."""
    cache: CachePolicy = field(default_factory=NoCache)
    """Which columns to recompute."""
    guide: Guide = field(default_factory=NoGuide)
    """How many of a forward's tokens stay."""
    forward: Forward = field(default_factory=Conditional)
    """How the base is asked."""
    block_length: int | None = None
    """Finish the response in blocks of this many columns, left to right (LLaDA's semi-
    autoregressive decoding); None: in the base's or the cache's blocks if it has any, else every
    column may be next."""

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

    def grid(self, base: Base) -> Grid | None:
        """The blocks the response of a base is written in; None: there are none.

        Raises ConfigError if they are not the base's own, where it has such.
        """
        own = base.attention.block_length
        if own is None:
            return None if self.blocks is None else Grid(self.blocks)
        if self.blocks not in (None, own):
            raise ConfigError(
                f"block_length is {self.blocks}, but {base.name} writes in blocks of {own}; leave "
                "block_length out"
            )
        return Grid(own, own=True)

    def prepare(self, base: Base) -> "Policy":
        """The policy with ids resolved and anything heavy loaded and checked against the base.

        Raises ConfigError for blocks or a cache that do not fit it.
        """
        forward = self.forward.prepare(base)
        speaker = forward.speaker(base)
        self.grid(speaker)
        cache = self.cache.prepare(speaker)
        refine, early = self.refine.prepare(base), self.early.prepare(base)
        if base.attention.block_length is not None:
            early = FirstOf((AtEnd(base.end_ids, base.eos_id), early))
        return replace(
            self,
            commits_per_forward=self.schedule.prepare(base, refine),
            order=self.order.prepare(base),
            draw=self.draw.prepare(base),
            refine=refine,
            cache=cache,
            early=early,
            guide=self.guide.prepare(base),
            forward=forward,
        )
