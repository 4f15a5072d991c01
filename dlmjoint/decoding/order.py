"""Which column next: each order ranks the open cells, the highest rank is written first."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.looks.sent import sent
from dlmjoint.models.base import Base
from dlmjoint.random import Noise


class Order(ABC):
    """Ranks cells. Equal ranks are decided for the left-most column, so orders are reproducible."""

    def prepare(self, base: Base) -> "Order":
        """The same order with ids resolved."""
        return self

    @abstractmethod
    def rank(self, cells: Cells, noise: Noise) -> Float[Tensor, "B M"]:
        """One number per cell. The logits are computed if `cells.look` is read."""


@dataclass(frozen=True)
class LowEntropy(Order):
    """The column whose distribution has the least entropy (ADJUST; Dream's `entropy`)."""

    def rank(self, cells: Cells, noise: Noise) -> Tensor:
        """Minus the entropy, nats."""
        return cells.look.certainty


@dataclass(frozen=True)
class HighProbability(Order):
    """The column with the most probable token (Dream's `maskgit_plus`, LLaDA's `low_confidence`)."""

    def rank(self, cells: Cells, noise: Noise) -> Tensor:
        """The greatest log-probability."""
        return cells.look.log_best


@dataclass(frozen=True)
class Margin(Order):
    """The column whose two best tokens lie furthest apart in probability (Dream's `topk_margin`)."""

    def rank(self, cells: Cells, noise: Noise) -> Tensor:
        """Difference of the two greatest probabilities."""
        return cells.look.margin


@dataclass(frozen=True)
class Random(Order):
    """A uniformly random permutation of the columns (Dream's `origin`, LLaDA's `random`)."""

    def rank(self, cells: Cells, noise: Noise) -> Tensor:
        """The cells' own noise."""
        return noise.uniform(cells.rows_of_all, cells.places)


@dataclass(frozen=True)
class LeftToRight(Order):
    """Reading order."""

    def rank(self, cells: Cells, noise: Noise) -> Tensor:
        """Minus the column."""
        return -cells.columns.double()


@dataclass(frozen=True)
class EndsLast(Order):
    """Another order in which columns that would end the text come after all others (LLaDA's
    `confidence_eos_eot_inf`): an instruct model otherwise fills the tail with end-of-text first.

    The original puts the confidence of end-of-turn to zero but, by a slip, leaves end-of-text's;
    here both come last.
    """

    order: Order = field(default_factory=HighProbability)
    """The order of everything else."""
    end_ids: tuple[int, ...] = ()
    """Ids that end a text; empty: the base's own."""

    def prepare(self, base: Base) -> "EndsLast":
        """With the base's end ids."""
        return EndsLast(self.order.prepare(base), self.end_ids or base.end_ids)

    def rank(self, cells: Cells, noise: Noise) -> Tensor:
        """The other order's, lowered where the most probable token is an end."""
        best = cells.look.best
        ends = torch.isin(best, sent(self.end_ids, best.device))
        return self.order.rank(cells, noise).double() - BEYOND * ends


BEYOND = 1e6
"""More than any order's ranks differ: entropies, probabilities and columns are all smaller."""


def entropy(log_probs: Float[Tensor, "*cells V"]) -> Float[Tensor, "*cells"]:
    """Nats; impossible tokens (log-probability -inf) contribute nothing."""
    terms = log_probs.exp().mul_(log_probs)  # in place: at 152,064 words each copy is felt
    return terms.masked_fill_(log_probs == -torch.inf, 0).sum(-1).neg_()
