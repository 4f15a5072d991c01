"""Schedules that decide per row, from what the model says, how many tokens a forward writes.

Each is a rule on the next token in the policy's order, given what was written in this forward; the
first token is always written. Cells come one by one, so with a joint sampler the rule reads the
sampler's renewed distribution and with marginals the base's own.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlmjoint.decoding.order import entropy
from dlmjoint.decoding.refine import Joint, Refine
from dlmjoint.decoding.schedule import Schedule
from dlmjoint.errors import ConfigError


@dataclass(frozen=True)
class _Adaptive(Schedule):
    """Any number of tokens up to a cap."""

    cap: int | None = field(default=None, kw_only=True)
    """Most tokens per forward; None: no limit."""

    def __post_init__(self) -> None:
        if self.cap is not None and self.cap < 1:
            raise ConfigError(f"cap is {self.cap}, expected at least 1")

    def commits(self, forward: int, open_cells: Tensor, masked: Tensor) -> Tensor:
        """What is left, up to the cap."""
        return masked if self.cap is None else masked.clamp(max=self.cap)


@dataclass(frozen=True)
class ConfidenceThreshold(_Adaptive):
    """While the next token's greatest probability reaches a threshold (Fast-dLLM, arXiv 2505.22618;
    with `order=HighProbability()` and marginals it writes exactly the tokens above it)."""

    threshold: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}, expected more than 0 and at most 1")

    def accept(self, depth: int, log_probs: Tensor, spent: Tensor) -> tuple[Tensor, Tensor]:
        """Confident enough; nothing is spent."""
        return log_probs.exp().amax(-1) >= self.threshold, torch.zeros_like(spent)


@dataclass(frozen=True)
class ConfidenceFactor(_Adaptive):
    """While (n + 1)(1 - c) < factor, where c is the confidence of the n-th token (Fast-dLLM's
    `factor`: the more tokens at once, the surer each must be)."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor <= 0:
            raise ConfigError(f"factor is {self.factor}, expected more than 0")

    def accept(self, depth: int, log_probs: Tensor, spent: Tensor) -> tuple[Tensor, Tensor]:
        """Confident enough for its number; nothing is spent."""
        doubt = 1 - log_probs.exp().amax(-1)
        return (depth + 2) * doubt < self.factor, torch.zeros_like(spent)


@dataclass(frozen=True)
class EntropyBound(_Adaptive):
    """While the entropies of all tokens but the most uncertain add up to at most `nats` (EB-Sampler,
    arXiv 2505.24857): a bound on the dependence that drawing them apart ignores.

    Cells come in the policy's order; with `LowEntropy()` and marginals the last is the most
    uncertain, so the sum is that of the tokens before it.
    """

    nats: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nats < 0:
            raise ConfigError(f"nats is {self.nats}, expected 0 or more")

    def accept(self, depth: int, log_probs: Tensor, spent: Tensor) -> tuple[Tensor, Tensor]:
        """While what was spent before this token is within the bound; its entropy is its price."""
        return spent <= self.nats, entropy(log_probs)


@dataclass(frozen=True)
class Budget(_Adaptive):
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

    def prepare(self, refine: Refine) -> "Budget":
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

    def accept(
        self, depth: int, log_probs: Float[Tensor, "C V"], spent: Float[Tensor, " C"]
    ) -> tuple[Bool[Tensor, " C"], Float[Tensor, " C"]]:
        """While the sum of prices, this token's included, is within the budget."""
        if depth == 0:
            return torch.ones_like(spent, dtype=torch.bool), torch.zeros_like(spent)
        assert self.rate is not None, "Policy.prepare(base) takes the sampler's"
        price = self.rate[min(depth, len(self.rate)) - 1] * entropy(log_probs)
        return spent + price <= self.nats, price
