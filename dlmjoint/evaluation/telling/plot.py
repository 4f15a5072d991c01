"""Quality against speed, one line per family of decoders."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from dlmjoint.evaluation.scoring.aup import family
from dlmjoint.evaluation.telling.table import Rows, heading, measured

PANELS = ("mauve", "agreement_item", "parses", "accuracy")
"""Metrics of the picture, where they were measured."""

COLOURS = ("#0b6e99", "#c75d00", "#6940a5", "#0f7b6c", "#ad1a72", "#64473a", "#8a7300", "#4d5b8c")
"""One per family, told apart by readers with a colour vision deficiency too (and by marker)."""
MARKERS = "osD^vP"
INK, SOFT, LINE, PAPER = "#1d2329", "#5c6770", "#dde2e6", "#ffffff"
"""Of texts, of what stands back, of rules, of the ground."""
SIZE = (4.6, 3.5)
"""Of a panel, in inches."""
ROOM = 8
"""Families whose names fit into a panel; more stand below."""


@dataclass(frozen=True)
class Point:
    """A decoder's metric at its speed."""

    decoder: str
    speed: float
    value: float
    low: float
    high: float
    n: int | None
    """None for a cost, which has no interval either."""


def draw_quality(scores: Mapping[str, Any], path: Path) -> bool:
    """Write a PNG; False if none of the panels' metrics was measured."""
    rows = scores["decoders"]
    keys = [key for metric in PANELS for key in measured(rows) if key[1] == metric]
    if not keys:
        return False
    numbers = numbered(rows)
    crowded = len(numbers) > ROOM
    below = -(-len(numbers) // (2 * len(keys))) if crowded else 0
    size = (SIZE[0] * len(keys), SIZE[1] + 0.2 * below)
    figure = Figure(figsize=size, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, (task, metric) in zip(
        figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True
    ):
        ceiling = scores["ceiling"].get(task, {}).get(metric)
        draw(axes, points(rows, task, metric), numbers, ceiling)
        axes.set_title(titled(task, metric), fontsize=10, loc="left")
        axes.set_xlabel("tokens per base forward")
        if not crowded:
            axes.legend(frameon=False, fontsize=9)
    if crowded:
        entries = {
            n: h for ax in figure.axes for h, n in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower left",
            ncols=2 * len(keys),
            fontsize=8,
            frameon=False,
        )
    canvas.print_png(str(path))
    return True


def numbered(rows: Rows) -> dict[str, int]:
    """The families of decoders, and the number that says how each is drawn."""
    return {name: number for number, name in enumerate(dict.fromkeys(map(family, rows)))}


def titled(task: str, metric: str) -> str:
    """What a panel is about."""
    title = heading(metric) + (" agreement" if metric.startswith("agreement_") else "")
    return f"{title} ({task.replace('_', ' ')})"


def points(
    rows: Rows, task: str, metric: str, cost: str = "tokens_per_forward"
) -> dict[str, list[Point]]:
    """The decoders that were measured, by family, slow to fast by some cost."""
    found: dict[str, list[Point]] = {}
    for name, part in rows.items():
        score = part["tasks"].get(task, {}).get(metric)
        if score is not None:
            point = Point(name, part["cost"][cost], **score)
            found.setdefault(family(name), []).append(point)
    return {name: sorted(some, key=lambda p: p.speed) for name, some in found.items()}


def draw(
    axes: Axes,
    lines: Mapping[str, Sequence[Point]],
    numbers: Mapping[str, int],
    ceiling: Mapping[str, float] | None = None,
    logarithmic: bool = False,
) -> None:
    """Draw lines with their intervals; a line's number says which colour and marker it has.

    Everything drawn of a line is labelled for who works on the picture: `s3-line` and `s3-bars` for
    one of number 3, and its points as `labelled` says.
    """
    if ceiling is not None:
        low, high = ceiling["low"], ceiling["high"]
        axes.axhline(ceiling["value"], color=SOFT, lw=1, ls="--", label="ceiling", gid="ceiling")
        axes.axhspan(low, high, color=SOFT, alpha=0.12, lw=0, gid="ceiling-band")
    for index, (name, some) in enumerate(lines.items()):
        number = numbers[name]
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[number % len(MARKERS)]
        speeds, values = [p.speed for p in some], [p.value for p in some]
        lows, highs = [p.low for p in some], [p.high for p in some]
        axes.plot(speeds, values, color=colour, lw=1.6, gid=f"s{number}-line")
        axes.vlines(speeds, lows, highs, color=colour, lw=1.4, gid=f"s{number}-bars")
        for place, point in enumerate(some):
            axes.plot(
                [point.speed],
                [point.value],
                color=colour,
                marker=marker,
                ms=5.5,
                mec=PAPER,
                mew=0.7,
                ls="none" if len(some) == 1 or place else "-",
                label=name if place == 0 else None,
                gid=f"s{number}-{index}-{place}",
                zorder=3,
            )
    if logarithmic:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.margins(x=0.08)
    axes.grid(color=LINE, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=SOFT, labelsize=9)
    axes.xaxis.label.set_color(SOFT)
    axes.xaxis.label.set_fontsize(9.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)


def labelled(
    lines: Mapping[str, Sequence[Point]], numbers: Mapping[str, int]
) -> Iterator[tuple[str, Point]]:
    """Every point with the label it was drawn under."""
    for index, (name, some) in enumerate(lines.items()):
        for place, point in enumerate(some):
            yield f"s{numbers[name]}-{index}-{place}", point
