"""One look at the logits of some cells: all that orders, schedules, early rules and draws read of them."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Odds:
    """Logits as probabilities relative to the greatest. Nothing cancels in them."""

    best: Int[Tensor, "C 1"]
    """The most probable token, of equal ones the one with the least id."""
    behind: Float[Tensor, "C V"]
    """Logits minus the greatest."""
    odds: Float[Tensor, "C V"]
    """Probabilities over the greatest, but 0 for the most probable token itself."""
    others: Float[Tensor, " C"]
    """Their sum: the probability of all other tokens over that of the best."""


def odds_of(logits: Float[Tensor, "C V"]) -> Odds:
    """Of finite float32 logits, which are written over."""
    greatest, best = logits.max(-1, keepdim=True)
    behind = logits.sub_(greatest)
    odds = behind.exp().scatter_(-1, best, 0.0)
    return Odds(best, behind, odds, odds.sum(-1))


@dataclass(frozen=True)
class Look:
    """What is kept of the logits: a few numbers per cell, nothing as wide as the vocabulary."""

    best: Int[Tensor, "*cells"]
    """The most probable token, of equal ones the one with the least id."""
    log_best: Float[Tensor, "*cells"]
    """Its log-probability, nats."""
    margin: Float[Tensor, "*cells"]
    """How much more probable it is than the second."""
    entropy: Float[Tensor, "*cells"]
    """Nats."""
    gap: Float[Tensor, "*cells"]
    """The difference of the two greatest raw logits, before anything was forbidden; NaN where it was
    not asked for."""

    def at(self, index: Int[Tensor, "B M"]) -> "Look":
        """Some cells of every row."""
        return Look(*(getattr(self, part.name).gather(1, index) for part in fields(self)))

    @classmethod
    def joined(cls, parts: list["Look"], shape: tuple[int, int]) -> "Look":
        """Parts of the cells, put together in the shape of all."""
        columns = ([getattr(one, part.name) for one in parts] for part in fields(cls))
        return cls(*(torch.cat(column).view(shape) for column in columns))


def raw_gap(logits: Float[Tensor, "C V"]) -> Float[Tensor, " C"]:
    """The difference of each cell's two greatest logits, float32."""
    best = logits.topk(2, dim=-1).values.float()
    return best[:, 0] - best[:, 1]


def look_at(logits: Float[Tensor, "C V"], gap: Float[Tensor, " C"]) -> Look:
    """The look at finite float32 logits, which it writes over; `gap` is their `raw_gap`, taken before
    ids were forbidden.

    With d the logits minus the greatest and S the sum of exp(d) over all others, the entropy is
    log(1 + S) - sum(d exp(d)) / (1 + S): no term is negative, nothing cancels, and float32 holds
    entropies of 1e-30 nats to seven digits. The usual formula has none of them right at 1e-7.
    """
    one = odds_of(logits)
    spread = torch.linalg.vecdot(one.behind, one.odds)  # without an array of the products
    log_best = -one.others.log1p()
    return Look(
        best=one.best.squeeze(-1),
        log_best=log_best,
        margin=(1 - one.odds.amax(-1)) / (1 + one.others),
        entropy=-log_best - spread / (1 + one.others),
        gap=gap,
    )
