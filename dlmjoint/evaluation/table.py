"""scores.json as rows and columns, drawn for the terminal, for Markdown or for HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

DETAILS = ("agreement_grammar", "agreement_faithful", "answered")
"""Metrics the terminal leaves out for want of room; the report has them."""

TITLES = {"mauve": "MAUVE", "nll": "NLL", "trajectory_kl": "trajectory KL"}
"""Headings that are not simply the metric's name."""

COST_TITLES = {
    "base_forwards": "base forwards",
    "columns": "columns computed",
    "sampler_passes": "sampler passes",
    "guide_passes": "guide passes",
    "tokens_per_forward": "tokens / forward",
    "tokens_per_second": "tokens / s",
}
"""Headings of costs."""

SHORT = {
    "arithmetic": "arith",
    "accuracy": "acc.",
    "trajectory KL": "traj. KL",
    "tokens / forward": "tok /fwd",
    "tokens / s": "tok /s",
}
"""Headings where there is little room."""


@dataclass(frozen=True)
class Cell:
    """A value, with its interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """Three decimals below a hundred."""
        return _digits(self.value)

    @property
    def half_width(self) -> str:
        """The longer side of the interval, where there is little room."""
        if self.low is None or self.high is None:
            return ""
        return f"±{max(self.high - self.value, self.value - self.low):.2f}"

    @property
    def interval(self) -> str:
        """`low to high`, empty without an interval."""
        if self.low is None or self.high is None:
            return ""
        return f"{_digits(self.low)}–{_digits(self.high)}"


@dataclass(frozen=True)
class Table:
    """One row per decoder; a cell that was not measured is None."""

    headings: list[str]
    names: list[str]
    cells: list[list[Cell | None]]

    def rich(self) -> RichTable:
        """For the terminal, 80 columns if need be: half-widths of the intervals under the values."""
        table = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("decoder", no_wrap=True)
        for name in self.headings:
            table.add_column(SHORT.get(name, name), justify="right", min_width=5)
        for name, row in zip(self.names, self.cells, strict=True):
            table.add_row(name, *map(_rich_cell, row))
        return table

    def markdown(self) -> str:
        """A pipe table."""
        lines = [["decoder", *self.headings], ["---", *["--:"] * len(self.headings)]]
        for name, row in zip(self.names, self.cells, strict=True):
            lines.append([name, *map(_markdown_cell, row)])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def html(self) -> str:
        """A `<table>` element."""
        head = "".join(f"<th>{escape(heading)}</th>" for heading in ["decoder", *self.headings])
        body = "".join(
            f"<tr><th>{escape(name)}</th>{''.join(map(_html_cell, row))}</tr>"
            for name, row in zip(self.names, self.cells, strict=True)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


SPEED = ("tokens_per_forward", "tokens_per_second")
"""The costs every table has."""
COSTS = ("base_forwards", "columns", "sampler_passes", "guide_passes", *SPEED)
"""Everything a decoding spends; counts are per example."""


def table_of(
    scores: Mapping[str, Mapping[str, Any]],
    leave_out: Sequence[str] = (),
    costs: Sequence[str] = SPEED,
) -> Table:
    """The table of one or several runs, by the run's name ("" for none)."""
    rows = {
        f"{run}/{name}" if run else name: part
        for run, content in scores.items()
        for name, part in _rows(content).items()
    }
    keys = list(
        dict.fromkeys(
            (task, metric)
            for part in rows.values()
            for task, metrics in part["tasks"].items()
            for metric in metrics
            if metric not in leave_out
        )
    )
    cells = [
        [_cell(part["tasks"].get(task, {}).get(metric)) for task, metric in keys]
        + [_cost_cell(part, key) for key in costs]
        for part in rows.values()
    ]
    headings = [*_headings(keys), *(COST_TITLES[key] for key in costs)]
    return Table(headings, list(rows), cells)


def _rows(content: Mapping[str, Any]) -> dict[str, Any]:
    """The decoders and, where there is one, the ceiling as a row of its own."""
    rows = dict(content["decoders"])
    if content["ceiling"]:
        rows["(ceiling)"] = {"tasks": content["ceiling"], "cost": {}}
    return rows


def _headings(keys: Sequence[tuple[str, str]]) -> list[str]:
    """Metric names, with the task where two tasks have the metric."""
    metrics = [metric for _, metric in keys]
    return [
        heading(metric) + (f" ({task})" if metrics.count(metric) > 1 else "")
        for task, metric in keys
    ]


def heading(metric: str) -> str:
    """A metric's name as people read it; a check of the corpus goes by what it checks."""
    return TITLES.get(metric, metric.removeprefix("agreement_").replace("_", " "))


def _cell(score: Mapping[str, float] | None) -> Cell | None:
    return None if score is None else Cell(score["value"], score["low"], score["high"])


def _cost_cell(part: Mapping[str, Any], key: str) -> Cell | None:
    """Counts per example: those of two runs of different size compare."""
    cost = part["cost"]
    if key not in cost:
        return None
    return Cell(cost[key] if key in SPEED else cost[key] / cost["examples"])


def _rich_cell(cell: Cell | None) -> Text:
    if cell is None:
        return Text("")
    lines = [Text(cell.text)]
    if cell.half_width:
        lines.append(Text(cell.half_width, style="dim"))
    return Text("\n").join(lines)


def _markdown_cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.text} ({cell.interval})" if cell.interval else cell.text


def _html_cell(cell: Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    interval = f"<small>{cell.interval}</small>" if cell.interval else ""
    return f"<td>{cell.text}{interval}</td>"


def _digits(value: float) -> str:
    return (
        f"{value:,.0f}"
        if abs(value) >= 100
        else f"{value:.3g}"
        if abs(value) >= 10
        else f"{value:.3f}"
    )
