"""Which column next: each order ranks the open cells, the highest rank is written first."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlmjoint.random import Noise


class Order(ABC):
    """Ranks cells. Equal ranks are decided for the left-most column, so orders are reproducible."""

    @abstractmethod
    def rank(
        self,
        log_probs: Float[Tensor, "C V"],
        rows: Int[Tensor, " C"],
        columns: Int[Tensor, " C"],
        noise: Noise,
    ) -> Float[Tensor, " C"]:
        """One number per open cell; `columns` count from the response's first."""


@dataclass(frozen=True)
class LowEntropy(Order):
    """The column whose distribution has the least entropy (ADJUST; Dream's `entropy`)."""

    def rank(self, log_probs: Tensor, rows: Tensor, columns: Tensor, noise: Noise) -> Tensor:
        """Minus the entropy, nats."""
        return -entropy(log_probs)


@dataclass(frozen=True)
class HighProbability(Order):
    """The column with the most probable token (Dream's `maskgit_plus`, LLaDA's `low_confidence`)."""

    def rank(self, log_probs: Tensor, rows: Tensor, columns: Tensor, noise: Noise) -> Tensor:
        """The greatest log-probability."""
        return log_probs.amax(-1)


@dataclass(frozen=True)
class Margin(Order):
    """The column whose two best tokens lie furthest apart in probability (Dream's `topk_margin`)."""

    def rank(self, log_probs: Tensor, rows: Tensor, columns: Tensor, noise: Noise) -> Tensor:
        """Difference of the two greatest probabilities."""
        best = log_probs.exp().topk(2, dim=-1).values
        return best[:, 0] - best[:, 1]


@dataclass(frozen=True)
class Random(Order):
    """A uniformly random permutation of the columns (Dream's `origin`, LLaDA's `random`)."""

    def rank(self, log_probs: Tensor, rows: Tensor, columns: Tensor, noise: Noise) -> Tensor:
        """The cells' own noise."""
        return noise.uniform(rows, columns).to(log_probs.device)


@dataclass(frozen=True)
class LeftToRight(Order):
    """Reading order."""

    def rank(self, log_probs: Tensor, rows: Tensor, columns: Tensor, noise: Noise) -> Tensor:
        """Minus the column."""
        return -columns.double()


def entropy(log_probs: Float[Tensor, "*cells V"]) -> Float[Tensor, "*cells"]:
    """Nats; impossible tokens (log-probability -inf) contribute nothing."""
    return -(log_probs.exp() * log_probs.masked_fill(log_probs == -torch.inf, 0)).sum(-1)
