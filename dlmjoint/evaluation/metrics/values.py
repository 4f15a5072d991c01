"""What a metric found in every example: it has a score, and can be compared with another decoder's
on the same examples."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binomtest

from dlmjoint.errors import DataError
from dlmjoint.evaluation.metrics.intervals import RESAMPLES, ratio, resamples, share, spread_about
from dlmjoint.evaluation.records import Score


@dataclass(frozen=True)
class Difference:
    """How much more the second of two decoders has, and how surprising that is."""

    difference: Score
    p_value: float
    """Two-sided, of no difference; not corrected for how many comparisons there are."""
    test: Literal["mcnemar", "bootstrap"]


class Values(ABC):
    """One value per example."""

    @abstractmethod
    def score(self) -> Score:
        """Over all examples, with its interval."""

    @abstractmethod
    def against(self, other: "Values") -> Difference:
        """The other's score minus this one's; both are of one metric, on the same examples."""


@dataclass(frozen=True)
class Flags(Values):
    """Right or wrong."""

    values: list[bool]

    def score(self) -> Score:
        """The share of true flags, Wilson's interval."""
        return share(self.values)

    def against(self, other: Values) -> Difference:
        """McNemar's exact test: are the examples on which only one is right a fair coin's tosses?

        (Q. McNemar, Psychometrika 12, 1947.) The interval is Newcombe's hybrid score interval for
        paired shares (Statistics in Medicine 17, 2635, 1998, method 10); a bootstrap would be
        certain of a difference of 0 wherever two decoders happen to agree on every example.
        """
        assert isinstance(other, Flags)
        pairs = list(zip(self.values, other.values, strict=True))
        first = sum(a and not b for a, b in pairs)
        second = sum(b and not a for a, b in pairs)
        test = binomtest(second, first + second).pvalue if first + second else 1.0
        return Difference(_newcombe(self.values, other.values), float(test), "mcnemar")


@dataclass(frozen=True)
class Ratios(Values):
    """A sum and what it is divided by: the score is the sum of sums over the sum of counts."""

    sums: Float[np.ndarray, " n"]
    counts: Float[np.ndarray, " n"]

    def score(self) -> Score:
        """The ratio, with a bootstrap over examples."""
        return ratio(self.sums, self.counts)

    def against(self, other: Values) -> Difference:
        """The difference of the ratios, both resampled by the same examples.

        The p-value is twice the share of resamples on the rarer side of 0, the measured one counted
        among them (Davison and Hinkley 1997, section 4.2), so never below 2 / (resamples + 1).
        Raises DataError if the two are not of the same examples.
        """
        assert isinstance(other, Ratios)
        if len(self.sums) != len(other.sums):
            raise DataError(f"{len(self.sums)} examples do not pair with {len(other.sums)}")
        weights = resamples(len(self.sums))
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = other._means(weights) - self._means(weights)
        spread = spread[np.isfinite(spread)]
        value = float(other.sums.sum() / other.counts.sum() - self.sums.sum() / self.counts.sum())
        rarer = min(int((spread <= 0).sum()), int((spread >= 0).sum()))
        p_value = min(1.0, 2 * (rarer + 1) / (RESAMPLES + 1))
        return Difference(spread_about(value, spread, len(self.sums)), p_value, "bootstrap")

    def _means(self, weights: Int[np.ndarray, "times n"]) -> Float[np.ndarray, " times"]:
        return (weights @ self.sums) / (weights @ self.counts)


def _newcombe(first: list[bool], second: list[bool]) -> Score:
    """The difference of two paired shares, second minus first."""
    a, b = share(first), share(second)
    phi = _correlation(np.array(first, dtype=float), np.array(second, dtype=float))
    value = b.value - a.value

    def reach(mine: float, theirs: float) -> float:
        return sqrt(max(mine**2 - 2 * phi * mine * theirs + theirs**2, 0.0))

    low = value - reach(b.value - b.low, a.high - a.value)
    high = value + reach(b.high - b.value, a.value - a.low)
    return Score(value, max(low, -1.0), min(high, 1.0), a.n)


def _correlation(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Of two sets of flags; 0 where one of them is all alike."""
    spread = first.std() * second.std()
    return float((first * second).mean() - first.mean() * second.mean()) / spread if spread else 0.0
