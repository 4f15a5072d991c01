"""Decoders compared on the same examples: the noise is the same too, so little of it is left."""

from collections.abc import Mapping
from typing import Any

from dlmjoint.evaluation.metrics.values import Values

Measured = Mapping[str, Mapping[str, Values]]
"""By decoder, then by metric: one value per example."""


def compare(measured: Measured) -> dict[str, list[dict[str, Any]]]:
    """Every decoder against the first of the run, by metric: what is to be shown of a faster decoder
    is how far it is from the exact one, so name that one first.

    The p-values are not corrected for the number of decoders.
    """
    first, *others = measured
    found: dict[str, list[dict[str, Any]]] = {}
    for metric, values in measured[first].items():
        for other in others:
            different = values.against(measured[other][metric])
            found.setdefault(metric, []).append(
                {
                    "a": first,
                    "b": other,
                    "difference": different.difference.to_json(),
                    "p_value": different.p_value,
                    "test": different.test,
                }
            )
    return found
