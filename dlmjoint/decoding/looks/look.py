"""One look at the logits of some cells: all that orders, schedules, early rules and draws read of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlmjoint.decoding.looks.sent import standard
from dlmjoint.decoding.looks.tiles import captured_numbers, in_tiles, tiles_of

SPLIT = 1 << 15
"""Words from which on torch sums a single cell with several threads, and so in another order than
one of many cells."""


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
    return Odds(best, behind, odds, sum_of(odds))


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


def look_at(
    logits: Float[Tensor, "*cells V"], gap: Float[Tensor, "*cells"] | None, captured: bool = False
) -> Look:
    """The look at finite float32 logits, which it writes over unless it is compiled; `gap` is their
    `raw_gap`, taken before ids were forbidden."""
    if captured:
        numbers = captured_numbers(logits.device)(in_tiles(logits))
        best, others, second, spread = (each.view(logits.shape[:-1]) for each in numbers)
        return Look(best, others, second, spread, gap)
    one = odds_of(logits)
    return Look(one.best.squeeze(-1), one.others, one.odds.amax(-1), _sum_of_products(one), gap)


def sum_of(values: Float[Tensor, "*cells V"]) -> Float[Tensor, "*cells"]:
    """Sums over the vocabulary, a cell's the same whatever the number of cells and threads."""
    vocab_size = values.shape[-1]
    if vocab_size >= SPLIT:
        values = values.unflatten(-1, (tiles_of(vocab_size), -1)).sum(-1)
    return values.sum(-1)


def _sum_of_products(one: Odds) -> Float[Tensor, "*cells"]:
    """The sum of d exp(d) over the vocabulary, without an array of the products.

    The gradient of a group norm's scale is such a sum, and of torch's operations the one that neither
    writes products (`vecdot`), nor loses digits (`bmm`: 1e-4 over 152,064 words), nor depends on where
    a cell lies in memory (`dot`). A channel is a tile of a cell's vocabulary, of mean 0 and deviation 1.
    """
    parts = tiles_of(one.odds.shape[-1])
    scale = one.others  # without values of consequence: the sums take its shape
    if parts > 1:
        scale = scale[..., None].expand(*scale.shape, parts)
    width = one.odds.shape[-1] // parts
    zero, unit = standard(scale.device)
    _, sums, _ = torch.ops.aten.native_group_norm_backward(
        one.odds, one.behind, zero, unit, scale, 1, scale.numel(), width, 1, [False, True, False]
    )
    return sums if parts == 1 else sums.sum(-1)
