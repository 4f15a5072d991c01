"""One look at the logits of some cells: all that orders, schedules, early rules and draws read of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Odds:
    """Logits as probabilities relative to the greatest. Nothing cancels in them."""

    best: Int[Tensor, "*cells 1"]
    """The most probable token, of equal ones the one with the least id."""
    behind: Float[Tensor, "*cells V"]
    """Logits minus the greatest."""
    odds: Float[Tensor, "*cells V"]
    """Probabilities over the greatest, but 0 for the most probable token itself."""
    others: Float[Tensor, "*cells"]
    """Their sum: the probability of all other tokens over that of the best."""


def odds_of(logits: Float[Tensor, "*cells V"]) -> Odds:
    """Of finite float32 logits, which are written over."""
    greatest, best = logits.max(-1, keepdim=True)
    behind = logits.sub_(greatest)
    odds = behind.exp().scatter_(-1, best, 0.0)
    return Odds(best, behind, odds, odds.sum(-1))


@dataclass(frozen=True)
class Look:
    """What is kept of the logits: a few numbers per cell, nothing as wide as the vocabulary.

    With d the logits minus the greatest and S the sum of exp(d) over all but the best token, the entropy
    is log(1 + S) - sum(d exp(d)) / (1 + S): no term is negative, nothing cancels, and float32 holds
    entropies of 1e-30 nats to seven digits. The usual formula has none of them right at 1e-7.
    """

    best: Int[Tensor, "*cells"]
    """The most probable token, of equal ones the one with the least id."""
    others: Float[Tensor, "*cells"]
    """S: the probability of all other tokens over the best one's."""
    second: Float[Tensor, "*cells"]
    """The probability of the second token over the best one's."""
    spread: Float[Tensor, "*cells"]
    """The sum of d exp(d)."""
    gap: Float[Tensor, "*cells"] | None
    """The difference of the two greatest raw logits, before anything was forbidden; None where it was
    not asked for."""

    @cached_property
    def log_best(self) -> Float[Tensor, "*cells"]:
        """Log-probability of the best token, nats."""
        return -self.others.log1p()

    @property
    def margin(self) -> Float[Tensor, "*cells"]:
        """How much more probable the best token is than the second."""
        return (1 - self.second) / (1 + self.others)

    @cached_property
    def certainty(self) -> Float[Tensor, "*cells"]:
        """Minus the entropy, nats."""
        return self.spread / (1 + self.others) - self.others.log1p()

    @property
    def entropy(self) -> Float[Tensor, "*cells"]:
        """Nats."""
        return -self.certainty

    def at(self, index: Int[Tensor, "B M"]) -> "Look":
        """Some cells of every row."""
        return Look.joined([self], lambda parts: parts[0].gather(1, index))

    @classmethod
    def joined(cls, looks: list["Look"], join: Callable[[list[Tensor]], Tensor]) -> "Look":
        """Looks made into one, number by number."""
        gaps = [look.gap for look in looks if look.gap is not None]
        return cls(
            best=join([look.best for look in looks]),
            others=join([look.others for look in looks]),
            second=join([look.second for look in looks]),
            spread=join([look.spread for look in looks]),
            gap=join(gaps) if gaps else None,
        )


def raw_gap(logits: Float[Tensor, "*cells V"]) -> Float[Tensor, "*cells"]:
    """The difference of each cell's two greatest logits, float32."""
    best = logits.topk(2, dim=-1).values.float()
    return best[..., 0] - best[..., 1]


def look_at(logits: Float[Tensor, "*cells V"], gap: Float[Tensor, "*cells"] | None) -> Look:
    """The look at finite float32 logits, which it writes over; `gap` is their `raw_gap`, taken before
    ids were forbidden."""
    one = odds_of(logits)
    return Look(
        best=one.best.squeeze(-1),
        others=one.others,
        second=one.odds.amax(-1),
        spread=one.behind.mul_(one.odds).sum(
            -1
        ),  # `vecdot` would take another array for the products
        gap=gap,
    )
