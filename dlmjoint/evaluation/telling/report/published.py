"""The papers' own numbers, to be drawn beside a run's: other models, other data."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

SPEEDUP = "speedup"
"""Of a curve's x or metric: seconds (or tokens per second) of the slowest point over a point's."""
USUAL = "gsm8k"
"""Where accuracy was published most; drawn beside tasks of which nothing was published."""


@dataclass(frozen=True)
class Curve:
    """Points of one figure or table."""

    source: str
    """The paper."""
    place: str
    """Figure or table."""
    setting: str
    """Model and data."""
    metric: str
    """As in scores.json, shares for percentages; or `speedup`."""
    x: str
    """`tokens_per_forward` or `speedup`."""
    task: str | None
    """Null where the metric is not of a task's answers."""
    points: dict[str, list[list[float]]]
    """(x, metric) by the paper's name of the method."""
    note: str
    """What else one must know of the numbers."""


@cache
def curves() -> tuple[Curve, ...]:
    """Everything in published.json."""
    text = (files("dlmjoint.evaluation.telling.report") / "published.json").read_text(
        encoding="utf-8"
    )
    return tuple(Curve(**values) for values in json.loads(text))


def beside(task: str, metric: str, x: str) -> list[Curve]:
    """The curves to draw beside a run's metric of a task: those of the same benchmark where there
    are any."""
    found = [curve for curve in curves() if (curve.metric, curve.x) == (metric, x)]
    name = task.lower().replace("-", "").replace("_", "")
    same = [curve for curve in found if curve.task is None or curve.task in name]
    return same or [curve for curve in found if curve.task == USUAL]
