"""Quality against speed, one line per family of decoders."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dlmjoint.evaluation.table import heading

PANELS = ("mauve", "agreement_item", "accuracy")
"""Metrics drawn, where they were measured."""

COLOURS = ("#0b6e99", "#d9730d", "#6940a5", "#0f7b6c", "#ad1a72", "#64473a")
"""One per family, told apart by readers with a colour vision deficiency too (and by marker)."""
MARKERS = "osD^vP"


def draw_quality(scores: Mapping[str, Any], path: Path) -> bool:
    """Write a PNG; False if none of the panels' metrics was measured."""
    keys = [
        (task, metric)
        for metric in PANELS
        for task in _tasks(scores)
        if any(metric in part["tasks"].get(task, {}) for part in scores["decoders"].values())
    ]
    if not keys:
        return False
    figure = Figure(figsize=(4.6 * len(keys), 3.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, (task, metric) in zip(
        figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True
    ):
        _panel(axes, scores, task, metric)
    canvas.print_png(str(path))
    return True


def family(decoder: str) -> str:
    """The name up to its K: `joint-k4` is of the family `joint`."""
    return re.sub(r"-k\d+.*$", "", decoder)


def _panel(axes: Axes, scores: Mapping[str, Any], task: str, metric: str) -> None:
    ceiling = scores["ceiling"].get(task, {}).get(metric)
    if ceiling is not None:
        axes.axhline(ceiling["value"], color="0.5", lw=1, ls="--", label="ceiling")
        axes.axhspan(ceiling["low"], ceiling["high"], color="0.5", alpha=0.12, lw=0)
    for index, (name, points) in enumerate(_families(scores, task, metric).items()):
        speeds, values = [p[0] for p in points], [p[1]["value"] for p in points]
        below = [p[1]["value"] - p[1]["low"] for p in points]
        above = [p[1]["high"] - p[1]["value"] for p in points]
        axes.errorbar(
            speeds,
            values,
            yerr=[below, above],
            label=name,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            ms=5,
            lw=1.6,
            capsize=3,
        )
    title = heading(metric) + (" agreement" if metric.startswith("agreement_") else "")
    axes.set_title(f"{title} ({task.replace('_', ' ')})", fontsize=10, loc="left")
    axes.set_xlabel("tokens per base forward")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.12)
    axes.grid(alpha=0.25, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _families(
    scores: Mapping[str, Any], task: str, metric: str
) -> dict[str, list[tuple[float, dict[str, float]]]]:
    """Points (tokens per forward, score) of every family, slow to fast."""
    found: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for name, part in scores["decoders"].items():
        score = part["tasks"].get(task, {}).get(metric)
        if score is not None:
            speed = part["cost"]["tokens_per_forward"]
            found.setdefault(family(name), []).append((speed, score))
    return {name: sorted(points, key=lambda p: p[0]) for name, points in found.items()}


def _tasks(scores: Mapping[str, Any]) -> Sequence[str]:
    return list(dict.fromkeys(t for part in scores["decoders"].values() for t in part["tasks"]))
