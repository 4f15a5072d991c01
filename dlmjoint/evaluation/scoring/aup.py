"""Accuracy under parallelism (AUP): a family of decoders' accuracy and speed as one number.

The definition is d3LLM's (Qian et al., ICML 2026; hao-ai-lab.github.io/blogs/text-diffusion): the
area under accuracy, in per cent, against tokens per forward, each accuracy y weighted by
W(y) = min(exp(-3 (1 - y / y_max)), 1):

    AUP = r_1 y_1 + 1/2 sum over i >= 2 of (r_i - r_{i-1}) (y_i W(y_i) + y_{i-1} W(y_{i-1}))

over the points with y_i >= y_1 - 5. Here y_max is the best accuracy of this run on this task, where
theirs is the best of all methods they compare: values of two runs compare only if their best do.
Tokens per forward count all tokens written, end-of-text too, as everywhere in scores.json.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dlmjoint.evaluation.metrics.intervals import resamples, spread_about

ALPHA = 3.0
"""How fast a lost share of accuracy loses weight."""
TOLERATED = 5.0
"""Percentage points below the slowest point at which a point still counts."""


def family(decoder: str) -> str:
    """The name without its K: `joint-k4` is of the family `joint`, `joint-k4+cache` of
    `joint+cache`."""
    return re.sub(r"-k\d+", "", decoder, count=1)


def families(names: Iterable[str], exact: str | None) -> dict[str, list[str]]:
    """The decoders of every family of two or more, the exact one first."""
    found: dict[str, list[str]] = {}
    for name in names:
        if family(name) != name:
            found.setdefault(family(name), []).append(name)
    if exact is not None and family(exact) == exact:
        found = {key: [exact, *members] for key, members in found.items()}
    return {key: members for key, members in found.items() if len(members) > 1}


@dataclass(frozen=True)
class Point:
    """One decoder on one task, example by example."""

    correct: Float[np.ndarray, " n"]
    tokens: Float[np.ndarray, " n"]
    forwards: Float[np.ndarray, " n"]


def aup(points: Mapping[str, Point], exact: str | None) -> dict[str, dict[str, Any]]:
    """Every family's AUP, for decoders named as `joint-k4` is.

    `exact` names the decoder of one token per forward, if the run has one: without a K of its own
    it is every family's first point, since K = 1 is the same for all. The interval is a bootstrap
    over examples, the same ones for all decoders, y_max included. A family of one point has no area
    and is left out.
    """
    names = families(points, exact)
    if not names:
        return {}
    everyone = list(points)
    n = len(points[everyone[0]].correct)
    weights = np.concatenate([np.ones((1, n)), resamples(n)])
    accuracy = np.stack([100 * (weights @ points[name].correct) / n for name in everyone], axis=1)
    speed = np.stack(
        [(weights @ points[m].tokens) / (weights @ points[m].forwards) for m in everyone], axis=1
    )
    found = {}
    for method, members in names.items():
        at = [everyone.index(member) for member in members]
        areas = [area(r[at], y[at], y.max()) for r, y in zip(speed, accuracy, strict=True)]
        score = spread_about(areas[0], np.array(areas[1:]), n)
        found[method] = score.to_json() | {"decoders": members}
    return found


def area(speed: Float[np.ndarray, " m"], accuracy: Float[np.ndarray, " m"], best: float) -> float:
    """The AUP of some points: tokens per forward, accuracy in per cent, the task's best accuracy."""
    order = np.argsort(speed, kind="stable")
    r, y = speed[order], accuracy[order]
    counts = y >= y[0] - TOLERATED
    r, y = r[counts], y[counts]
    if best == 0:  # nobody is ever right: the area under nothing
        return 0.0
    weighted = y * np.minimum(np.exp(-ALPHA * (1 - y / best)), 1)
    return float(r[0] * y[0] + np.trapezoid(weighted, r))
