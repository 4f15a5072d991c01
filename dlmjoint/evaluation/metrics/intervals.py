"""95 % intervals. Examples are the unit: two tokens of one text are not independent."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binomtest

from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Score

RESAMPLES = 1000
"""Of a bootstrap."""


def share(flags: Sequence[bool]) -> Score:
    """The share of true flags with Wilson's interval."""
    if not flags:
        raise DataError("there is nothing to take a share of")
    return wilson(sum(flags), len(flags))


def wilson(true: int, n: int) -> Score:
    """A share of n with Wilson's interval."""
    low, high = binomtest(true, n).proportion_ci(method="wilson")
    # At a share of 0 or 1 rounding may leave the interval 1e-17 beside it.
    return Score(true / n, min(float(low), true / n), max(float(high), true / n), n)


def resamples(n: int, times: int = RESAMPLES, seed: int = 0) -> Int[np.ndarray, "times n"]:
    """How often each example is in each bootstrap resample."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=times)


def ratio(sums: Float[np.ndarray, " n"], counts: Float[np.ndarray, " n"], seed: int = 0) -> Score:
    """sum(sums) / sum(counts) with the percentile interval of a bootstrap over examples."""
    if counts.sum() <= 0:
        raise DataError("there is nothing to take a mean of: every text is empty")
    n = len(sums)
    weights = resamples(n, seed=seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ sums) / (weights @ counts)
    return spread_about(float(sums.sum() / counts.sum()), means, n)


def spread_about(value: float, resampled: Float[np.ndarray, " times"], n: int) -> Score:
    """A value of n examples with the percentile interval of its resamples, those of nothing apart."""
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Score(value, min(float(low), value), max(float(high), value), n)
