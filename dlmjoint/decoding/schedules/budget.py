"""Adaptive K with one dial: as many tokens as a budget of error allows (ours)."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.looks.sent import sent
from dlmjoint.decoding.refine import Joint, Refine
from dlmjoint.decoding.schedules.adaptive import Adaptive
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base


@dataclass(frozen=True)
class Budget(Adaptive):
    """As many tokens as a budget of error allows: one dial, from exact (0) to fast.

    Each token after the first costs what drawing it from this distribution instead of the base's
    exact conditional is expected to cost, in nats of KL. That price is `rate` times the token's own
    entropy, a line through the origin: a certain token can hardly be wrong. `dlmjoint calibrate`
    measures KL and entropy of the very same tokens, depth by depth, and writes the rate into the
    sampler's config, so that the budget is all there is to choose.
    """

    nats: float = 0.02
    """KL a row may spend per forward."""
    rate: tuple[float, ...] | None = None
    """KL per nat of entropy at depth 1, 2, ...; deeper tokens cost what the last one does. None: the
    sampler's own."""
    cap: int | None = field(default=8, kw_only=True)
    """Most tokens per forward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nats < 0:
            raise ConfigError(f"nats is {self.nats}, expected 0 or more")
        if self.rate is not None and (not self.rate or min(self.rate) < 0):
            raise ConfigError(f"rate is {self.rate}, expected prices of 0 or more")

    def prepare(self, base: Base, refine: Refine) -> "Budget":
        """With the sampler's own rate where none is given. Raises ConfigError if it has none."""
        if self.rate is not None:
            return self
        known = refine.sampler.config.price_per_nat if isinstance(refine, Joint) else None
        if not known:
            raise ConfigError(
                "a budget needs the price of a token: run `dlmjoint calibrate` for this decoder and "
                "give its `rate`, or a sampler that carries its own"
            )
        return replace(self, rate=tuple(known))

    def price(self, depth: Tensor, cells: Cells) -> Tensor:
        """The rate at its depth times its entropy; the first token is the base's own and free."""
        assert self.rate is not None, "Policy.prepare(base) takes the sampler's"
        rates = sent((0.0, *self.rate), depth.device)
        return rates[depth.clamp(max=len(self.rate))] * cells.look.entropy

    def allows(self, depth: Tensor, cells: Cells, spent: Tensor) -> Tensor:
        """While the sum of prices, this token's included, is within the budget."""
        return spent + self.price(depth, cells) <= self.nats
