"""When an autoregressive guide lets a draft pass: the rules of FlashDLM's code, and APD's."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.decoding.draw import Draw
from dlmjoint.errors import ConfigError
from dlmjoint.random import Noise


@dataclass(frozen=True)
class Drafts:
    """Drafted tokens and what both models say about their columns, in the base's ids; all ends of a
    text are folded into one."""

    rows: Int[Tensor, " C"]
    places: Int[Tensor, " C"]
    """Response columns."""
    tokens: Int[Tensor, " C"]
    guide: Float[Tensor, "C V"]
    """Log-probabilities under the guide, given everything to the left, earlier drafts included."""
    base: Float[Tensor, "C V"] | None
    """Log-probabilities under the base's forward, before temperature and top-p of the drafts; None for a
    rule that does not read them."""
    draw: Draw
    noise: Noise

    @property
    def log_probs(self) -> Float[Tensor, " C"]:
        """Of the drafted tokens, under the guide."""
        return self.guide.gather(-1, self.tokens[:, None]).squeeze(-1)


class Accept(ABC):
    """A rule on single drafts; those behind the first refused one are lost with it."""

    needs_marginals: ClassVar[bool] = False
    """Whether it reads what the base says, so that drafts must have been drawn from that."""

    @abstractmethod
    def __call__(self, drafts: Drafts) -> Bool[Tensor, " C"]:
        """True where the draft may stay."""


@dataclass(frozen=True)
class TopK(Accept):
    """The draft is among the guide's k most probable tokens: `deterministic` is k = 1 (the paper's
    Top-1 match), `topk` its Top-2 and Top-5 match."""

    k: int = 1

    def __post_init__(self) -> None:
        _at_least_one(self.k)

    def __call__(self, drafts: Drafts) -> Bool[Tensor, " C"]:
        """As many as k - 1 tokens may be more probable."""
        return (drafts.guide > drafts.log_probs[:, None]).sum(-1) < self.k


@dataclass(frozen=True)
class TopKRelative(Accept):
    """Among the k most probable and not less than a share of the greatest (`topk_relative`, the
    shipped settings: k = 2, share 0.5)."""

    k: int = 2
    share: float = 0.5

    def __post_init__(self) -> None:
        _at_least_one(self.k)
        _a_probability("share", self.share)

    def __call__(self, drafts: Drafts) -> Bool[Tensor, " C"]:
        """Both conditions."""
        enough = drafts.log_probs.exp() >= self.share * drafts.guide.amax(-1).exp()
        return TopK(self.k)(drafts) & enough


@dataclass(frozen=True)
class MinimumProbability(Accept):
    """The guide gives the draft more than this (`dynamic_threshold`)."""

    probability: float = 0.1

    def __post_init__(self) -> None:
        _a_probability("probability", self.probability)

    def __call__(self, drafts: Drafts) -> Bool[Tensor, " C"]:
        """More than the threshold."""
        return drafts.log_probs.exp() > self.probability


@dataclass(frozen=True)
class Aggressive(Accept):
    """Among the five most probable, or above 0.05, or inside the guide's nucleus of 0.95."""

    k: int = 5
    probability: float = 0.05
    top_p: float = 0.95

    def __call__(self, drafts: Drafts) -> Bool[Tensor, " C"]:
        """Any of the three."""
        above = drafts.guide > drafts.log_probs[:, None]
        before = drafts.guide.exp().masked_fill(~above, 0).sum(-1)
        likely = MinimumProbability(self.probability)(drafts)
        return TopK(self.k)(drafts) | likely | (before <= self.top_p)


@dataclass(frozen=True)
class Stochastic(Accept):
    """With the probability the guide gives the draft (`original`). The coin belongs to the column: a
    draft refused there is always the next forward's first, which passes."""

    def __call__(self, drafts: Drafts) -> Bool[Tensor, " C"]:
        """Coin against probability."""
        coin = drafts.noise.uniform(drafts.rows, drafts.places, purpose="accept")
        return coin.to(drafts.tokens.device) < drafts.log_probs.exp()


@dataclass(frozen=True)
class Agreement(Accept):
    """The draft is also what the mixture of base and guide would draw with the same noise (adaptive
    parallel decoding, arXiv 2506.00413, as ADJUST runs it: weight 0.5)."""

    needs_marginals: ClassVar[bool] = True

    base_weight: float = 0.5
    """Share of the base's log-probabilities in the mixture."""

    def __post_init__(self) -> None:
        _a_probability("base_weight", self.base_weight)

    def __call__(self, drafts: Drafts) -> Bool[Tensor, " C"]:
        """Drawn alike."""
        assert drafts.base is not None  # the rule needs it
        mixed = self.base_weight * drafts.base + (1 - self.base_weight) * drafts.guide
        # 0 times -inf: a token impossible for either is impossible for the mixture.
        mixed = mixed.nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        again = drafts.draw.pick(
            drafts.draw.log_probs(mixed), drafts.rows, drafts.places, drafts.noise
        )
        return again == drafts.tokens


def _at_least_one(k: int) -> None:
    if k < 1:
        raise ConfigError(f"k is {k}, expected at least 1")


def _a_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}, expected 0 to 1")
