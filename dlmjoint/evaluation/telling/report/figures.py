"""The plots of a page: inline SVG that takes the page's colours and says what each point is."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from dlmjoint.evaluation.scoring.aup import family
from dlmjoint.evaluation.telling.plot import (
    COLOURS,
    INK,
    LINE,
    PAPER,
    SIZE,
    SOFT,
    Point,
    draw,
    labelled,
    numbered,
    points,
    titled,
)
from dlmjoint.evaluation.telling.report.published import SPEEDUP, Curve, beside
from dlmjoint.evaluation.telling.table import Cell, Rows, measured

SPEEDS = {
    "tokens_per_forward": "tokens per base forward",
    "tokens_per_second": "tokens per second",
}
"""What quality is drawn against."""
FRAME = (0.115, 0.145, 0.875, 0.845)
"""Of a plot's axes in it: left, bottom, width, height."""
AT_DEPTH = re.compile(r"(.+)@(\d+)")
"""The name of a metric of the j-th token of a forward: `kl@3`."""
SPEEDUP_AXIS = "speed-up in time"
VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", PAPER: "--paper"} | {
    colour: f"--series-{number}" for number, colour in enumerate(COLOURS)
}
"""The page's name of every colour drawn with."""


@dataclass(frozen=True)
class Panel:
    """One plot."""

    title: str
    svg: Mapping[str, Markup]
    """By what is on its horizontal axis."""
    theirs: Sequence[tuple[str, Curve, str]] = ()
    """Published curves in it: letter, curve, method."""


def quality(rows: Rows, ceilings: Mapping[str, Any]) -> list[Panel]:
    """Every metric against both speeds, but those that are measured by depth."""
    numbers = numbered(rows)
    panels = []
    for number, (task, metric) in enumerate(measured(rows)):
        if AT_DEPTH.fullmatch(metric):
            continue
        ceiling = ceilings.get(task, {}).get(metric)
        svgs = {}
        for speed, axis in SPEEDS.items():
            found = points(rows, task, metric, speed)
            prefix = f"quality-{number}-{speed}-"
            svgs[speed] = _svg(found, numbers, axis, titled(task, metric), prefix, ceiling)
        panels.append(Panel(titled(task, metric), svgs))
    return panels


def depths(rows: Rows) -> list[Panel]:
    """What is measured of the j-th token of a forward, against j: one line per decoder."""
    families = numbered(rows)
    numbers = {name: families[family(name)] for name in rows}
    keys = [(t, AT_DEPTH.fullmatch(m)) for t, m in measured(rows)]
    panels = []
    for task, metric in dict.fromkeys((task, found[1]) for task, found in keys if found):
        lines: dict[str, list[Point]] = {}
        for name, part in rows.items():
            for key, score in part["tasks"].get(task, {}).items():
                found = AT_DEPTH.fullmatch(key)
                if found and found[1] == metric:
                    lines.setdefault(name, []).append(Point(name, float(found[2]), **score))
        title = f"{titled(task, metric)}, by depth"
        svg = _svg(lines, numbers, "token of its forward", title, f"depths-{len(panels)}-")
        panels.append(Panel(title, {"depth": svg}))
    return panels


def papers(rows: Rows) -> list[Panel]:
    """The run's lines beside the papers' points, where the papers have measured the same thing."""
    numbers = numbered(rows)
    reference = next(iter(rows.values()))["cost"]["tokens_per_second"]
    sped = {
        name: {
            **part,
            "cost": part["cost"] | {SPEEDUP: part["cost"]["tokens_per_second"] / reference},
        }
        for name, part in rows.items()
    }
    panels = []
    for task, metric in [*measured(rows), ("", SPEEDUP)]:
        for x, axis in (
            ("tokens_per_forward", SPEEDS["tokens_per_forward"]),
            (SPEEDUP, SPEEDUP_AXIS),
        ):
            curves = beside(task, metric, x)
            if not curves:
                continue
            ours = _speedups(sped) if metric == SPEEDUP else points(sped, task, metric, x)
            theirs = [(curve, name) for curve in curves for name in curve.points]
            lettered = [(chr(ord("a") + i), curve, name) for i, (curve, name) in enumerate(theirs)]
            title = SPEEDUP_AXIS if metric == SPEEDUP else titled(task, metric)
            prefix = f"papers-{len(panels)}-"
            svg = _svg(ours, numbers, axis, title, prefix, theirs=lettered)
            panels.append(Panel(title, {x: svg}, lettered))
    return panels


def _speedups(rows: Rows) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for name, part in rows.items():
        value = part["cost"][SPEEDUP]
        point = Point(name, part["cost"]["tokens_per_forward"], value, value, value, None)
        found.setdefault(family(name), []).append(point)
    return {name: sorted(some, key=lambda p: p.speed) for name, some in found.items()}


def _svg(
    found: Mapping[str, Sequence[Point]],
    numbers: Mapping[str, int],
    axis: str,
    title: str,
    prefix: str,
    ceiling: Mapping[str, float] | None = None,
    theirs: Sequence[tuple[str, Curve, str]] = (),
) -> Markup:
    figure = Figure(figsize=SIZE)
    axes = figure.add_axes(FRAME)
    labels = {}
    for number, (letter, curve, name) in enumerate(theirs):
        x, y = zip(*curve.points[name], strict=True)
        style = {"color": SOFT, "lw": 1, "ls": (0, (4, 3)), "zorder": 2}
        axes.plot(x, y, marker=f"$\\mathbf{{{letter}}}$", ms=6.5, mew=0, gid=f"t{number}", **style)
        labels[f"t{number}"] = f"{letter}: {curve.source}, {curve.place}: {curve.setting}, {name}"
    # Published speeds lie close together below two and go up to sixteen.
    draw(axes, found, numbers, ceiling, logarithmic=bool(theirs))
    axes.set_xlabel(axis)
    for label, point in labelled(found, numbers):
        labels[label] = _told(point, axis)
    return inline(figure, title, labels, prefix)


def _told(point: Point, axis: str) -> str:
    cell = Cell(point.value, point.low, point.high)
    measured_on = "" if point.n is None else f" ({cell.interval}), n = {point.n:,}"
    return f"{point.decoder}: {cell.text}{measured_on}; {Cell(point.speed).text} {axis}"


def inline(figure: Figure, title: str, labels: Mapping[str, str], prefix: str) -> Markup:
    """A figure as an SVG element of a page, where no other has this prefix of its ids.

    What has a gid of `labels` can be pointed at and is read aloud; `s3-...` is marked as of series
    3; colours are the page's variables.
    """
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "dlmjoint"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue())
    _plain(root, prefix, labels)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "group",
        "aria-label": title,
        "class": "plot",
    }
    text = ElementTree.tostring(root, encoding="unicode", method="html")
    return Markup(_coloured(text))


def _plain(element: ElementTree.Element, prefix: str, labels: Mapping[str, str]) -> None:
    """Leave only what a page needs: no namespaces, ids of its own, no clipping (nothing drawn is
    outside), no backgrounds."""
    element.tag = element.tag.rpartition("}")[2]
    values = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    values.pop("clip-path", None)
    name = values.pop("id", "")
    if name in labels:
        values |= {"aria-label": labels[name], "role": "img", "tabindex": "0", "class": "point"}
    if re.match(r"[st]\d+", name):
        values["data-series"] = name.split("-")[0]
    if name and element.tag == "path":
        values["id"] = prefix + name  # a marker, to be used by its id
    if "href" in values:
        values["href"] = "#" + prefix + values["href"].removeprefix("#")
    element.attrib = values
    for child in list(element):
        tag = child.tag.rpartition("}")[2] if isinstance(child.tag, str) else ""
        if tag in ("metadata", "style", "clipPath", "") or child.get("id") in BACKGROUNDS:
            element.remove(child)
        else:
            _plain(child, prefix, labels)


BACKGROUNDS = ("patch_1", "patch_2")
"""matplotlib's names of the figure's ground and the axes'."""


def _coloured(svg: str) -> str:
    def variable(found: re.Match[str]) -> str:
        name = VARIABLES.get(found[0].lower())
        return found[0] if name is None else f"var({name})"

    return re.sub(r"#[0-9a-fA-F]{6}\b", variable, svg)
