"""scores.json as rows and columns, drawn for the terminal or in Markdown; `report` makes a page of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

Rows = Mapping[str, Mapping[str, Any]]
"""Decoders' parts of one or several scores.json."""
DETAILS = ("agreement_grammar", "agreement_faithful", "answered")
"""Metrics the terminal leaves out for want of room; the report has them."""

TITLES = {
    "mauve": "MAUVE",
    "nll": "NLL",
    "trajectory_kl": "trajectory KL",
    "kl": "KL",
    "top1": "top-1 agreement",
}
"""Headings that are not simply the metric's name."""

LOWER = {"nll", "kl", "perplexity", "bits", "variation"}
"""A metric with one of these words in its name is the better the lower it is; any other the higher."""


@dataclass(frozen=True)
class Cost:
    """How a cost of scores.json is shown."""

    title: str
    counted: bool = False
    """A total over the examples: shown per example, so that runs of different size compare."""
    unit: float = 1.0
    """How much one of what is shown is."""
    better: int = -1
    """1: the higher the better; -1: the lower; 0: it is only one way to spend."""


COST = {
    "base_forwards": Cost("base forwards", counted=True),
    "columns": Cost("columns computed", counted=True),
    "sampler_passes": Cost("sampler passes", counted=True, better=0),
    "guide_passes": Cost("guide passes", counted=True, better=0),
    "tokens_per_forward": Cost("tokens / forward", better=1),
    "tokens_per_second": Cost("tokens / s", better=1),
    "text_tokens_per_second": Cost("text tokens / s", better=1),
    "latency_p50": Cost("latency, median, s"),
    "latency_p90": Cost("latency, 90 %, s"),
    "latency_p99": Cost("latency, 99 %, s"),
    "flops": Cost("GFLOP", counted=True, unit=1e9),
    "bytes": Cost("GB of weights read", counted=True, unit=1e9),
    "peak_bytes": Cost("peak memory, GB", unit=1e9),
}
"""Every cost a table may have, in this order."""

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

    @classmethod
    def of(cls, score: Mapping[str, float]) -> "Cell":
        """Of a score in scores.json."""
        return cls(score["value"], score["low"], score["high"])

    @property
    def text(self) -> str:
        """Three decimals below a hundred."""
        return _digits(self.value)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval; None without one."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def half_width(self) -> str:
        """The longer side of the interval, where there is little room."""
        if self.bounds is None:
            return ""
        low, high = self.bounds
        return f"±{max(high - self.value, self.value - low):.2f}"

    @property
    def interval(self) -> str:
        """`low to high`, empty without an interval."""
        return "" if self.bounds is None else "–".join(map(_digits, self.bounds))


@dataclass(frozen=True)
class Column:
    """What a column is about."""

    title: str
    key: str
    """The metric or cost, as in scores.json."""
    task: str | None
    """None for a cost: that is of all tasks together."""
    better: int
    """1: the higher the better; -1: the lower; 0: neither."""


@dataclass(frozen=True)
class Table:
    """One row per decoder; a cell that was not measured is None."""

    columns: list[Column]
    names: list[str]
    cells: list[list[Cell | None]]

    @property
    def headings(self) -> list[str]:
        """The columns' titles."""
        return [column.title for column in self.columns]

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


CEILING = "(ceiling)"
"""The row of a perfect decoder's scores."""
SPEED = ("tokens_per_forward", "tokens_per_second")
"""The costs every table has."""
COSTS = ("base_forwards", "columns", "sampler_passes", "guide_passes", *SPEED)
"""What a decoding spends; counts are per example."""


def measured(rows: Rows) -> list[tuple[str, str]]:
    """Every task and metric that some decoder has."""
    return list(
        dict.fromkeys(
            (task, metric)
            for part in rows.values()
            for task, metrics in part["tasks"].items()
            for metric in metrics
        )
    )


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
    keys = [key for key in measured(rows) if key[1] not in leave_out]
    cells = [
        [(s := part["tasks"].get(task, {}).get(metric)) and Cell.of(s) for task, metric in keys]
        + [_cost_cell(part, key) for key in costs]
        for part in rows.values()
    ]
    columns = [*_columns(keys), *(Column(COST[k].title, k, None, COST[k].better) for k in costs)]
    return Table(columns, list(rows), cells)


def _rows(content: Mapping[str, Any]) -> dict[str, Any]:
    """The decoders and, where there is one, the ceiling as a row of its own."""
    rows = dict(content["decoders"])
    if content["ceiling"]:
        rows[CEILING] = {"tasks": content["ceiling"], "cost": {}}
    return rows


def _columns(keys: Sequence[tuple[str, str]]) -> list[Column]:
    """Titles name the task where two tasks have the metric."""
    metrics = [metric for _, metric in keys]
    return [
        Column(
            heading(metric) + (f" ({task})" if metrics.count(metric) > 1 else ""),
            metric,
            task,
            direction(metric),
        )
        for task, metric in keys
    ]


def direction(metric: str) -> int:
    """1 if more of a metric is better, -1 if less is."""
    return -1 if LOWER.intersection(re.split(r"[^a-z]+", metric.lower())) else 1


def heading(metric: str) -> str:
    """A metric's name as people read it; a check of the corpus goes by what it checks."""
    return TITLES.get(metric, metric.removeprefix("agreement_").replace("_", " "))


def _cost_cell(part: Mapping[str, Any], key: str) -> Cell | None:
    cost = part["cost"]
    if key not in cost:
        return None
    shared = cost["examples"] if COST[key].counted else 1
    return Cell(cost[key] / shared / COST[key].unit)


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


def _digits(value: float) -> str:
    return f"{value:{',.0f' if abs(value) >= 100 else '.3g' if abs(value) >= 10 else '.3f'}}"
