"""How far a decoder's distribution is from the exact one, where that is a table."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.metrics.base import Evidence, Metric
from dlmjoint.evaluation.metrics.intervals import RESAMPLES
from dlmjoint.evaluation.records import Generation, Score
from dlmjoint.models.base import Base
from dlmjoint.models.toy import TableModel


@dataclass(frozen=True)
class TotalVariation(Metric):
    """`total_variation`: half the sum, over all responses, of |share of the samples - probability
    under the table|; 0 to 1. For an enumerable base only.

    A finite sample of the table itself is not at 0, hence the ceiling: what an exact decoder gets at
    this n. The interval is a bootstrap's, about the bootstrap's mean, since resampling adds as much
    noise once more; it covers the sampling and not this bias.
    """

    has_ceiling: ClassVar[bool] = True

    def check(self, n: int, decoders: Mapping[str, Policy], exact: Policy) -> None:
        """Raise ConfigError for draws that change the table."""
        for name, policy in {**decoders, "exact": exact}.items():
            if policy.draw.temperature != 1 or policy.draw.top_p < 1 or policy.draw.forbid:
                raise ConfigError(
                    f"total_variation compares with the base's own joint, and {name} draws with "
                    f"{policy.draw}: leave temperature, top_p and forbid as they are"
                )

    def fits(self, base: Base) -> None:
        """Raise ConfigError for a base that cannot be enumerated."""
        _table(base)

    def __call__(self, evidence: Evidence) -> dict[str, Score]:
        """See the class. Raises ConfigError for responses of another length than the table's."""
        table = _table(evidence.replay()[0])
        shares = _shares(table, evidence.generations)
        return {"total_variation": _score(shares, table, len(evidence.generations))}


def _table(base: Base) -> TableModel:
    if not isinstance(base, TableModel):
        raise ConfigError(
            f"total_variation sums over all texts, and {base.name} has too many: measure "
            "trajectory_kl instead"
        )
    return base


def _shares(table: TableModel, generations: list[Generation]) -> Float[np.ndarray, " cells"]:
    """How often each response was written, the table's cells in their order."""
    counts = Counter(tuple(generation.tokens) for generation in generations)
    cells = list(product(*map(range, table.joint.shape)))
    found = np.array([counts[cell] for cell in cells], dtype=float)
    if found.sum() != len(generations):
        raise ConfigError(
            f"not all responses are cells of {table.name}: max_new_tokens is {table.joint.ndim} there"
        )
    return found / len(generations)


def _score(shares: Float[np.ndarray, " cells"], table: TableModel, n: int) -> Score:
    exact = table.joint.flatten().numpy()
    drawn = np.random.default_rng(0).multinomial(n, shares, size=RESAMPLES) / n
    spread = np.abs(drawn - exact).sum(-1) / 2
    value = float(np.abs(shares - exact).sum()) / 2
    low, high = value + np.percentile(spread, [2.5, 97.5]) - spread.mean()
    return Score(value, max(float(low), 0.0), min(float(high), 1.0), n)
