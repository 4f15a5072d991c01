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

SHARES = {
    "accuracy",
    "agreement",
    "answered",
    "defined",
    "mauve",
    "parses",
    "top",
    "used",
    "variation",
    "verbatim",
}
"""A metric with one of these words in its name lies between 0 and 1."""


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

    def shown(self, cost: Mapping[str, Any], key: str) -> float:
        """What is shown of a decoder's cost."""
        return cost[key] / (cost["examples"] if self.counted else 1) / self.unit


COST = {
    "base_forwards": Cost("base forwards", counted=True),
    "canvases": Cost("canvases", counted=True),
    "canvases_per_forward": Cost("canvases / forward"),
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

    def overlaps(self, other: "Cell") -> bool:
        """Do the intervals of the two, where they have some, reach into each other?"""
        if self.bounds is None or other.bounds is None:
            return False
        return self.bounds[0] <= other.bounds[1] and other.bounds[0] <= self.bounds[1]

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

    @property
    def rich(self) -> Text:
        """For the terminal: half the interval's width stands below."""
        below = Text(f"\n{self.half_width}" if self.half_width else "", style="dim")
        return Text(self.text).append(below)

    @property
    def markdown(self) -> str:
        """The value, and its interval in brackets."""
        return f"{self.text} ({self.interval})" if self.interval else self.text


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

    def part(self, columns: Sequence[int], rows: Sequence[int]) -> "Table":
        """Some columns and rows, by their places."""
        return Table(
            [self.columns[place] for place in columns],
            [self.names[row] for row in rows],
            [[self.cells[row][place] for place in columns] for row in rows],
        )

    def rich(self) -> RichTable:
        """For the terminal, 80 columns if need be: half-widths of the intervals under the values."""
        table = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("decoder", no_wrap=True)
        for name in self.headings:
            table.add_column(SHORT.get(name, name), justify="right", min_width=5)
        for name, row in zip(self.names, self.cells, strict=True):
            table.add_row(name, *(Text("") if cell is None else cell.rich for cell in row))
        return table

    def markdown(self) -> str:
        """A pipe table."""
        lines = [["decoder", *self.headings], ["---", *["--:"] * len(self.headings)]]
        for name, row in zip(self.names, self.cells, strict=True):
            lines.append([name, *("" if cell is None else cell.markdown for cell in row)])
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
    """The table of one or several runs, by the run's name ("" for none). Where a decoder asks about
    several canvases at once, a column more says how many."""
    rows: dict[str, Any] = {}
    for run, content in scores.items():
        parts = dict(content["decoders"])
        if content["ceiling"]:
            parts[CEILING] = {"tasks": content["ceiling"], "cost": {}}
        rows |= {f"{run}/{name}" if run else name: part for name, part in parts.items()}
    several = any(part["cost"].get("canvases_per_forward", 1) != 1 for part in rows.values())
    if several and "canvases_per_forward" not in costs:
        costs = [*costs, "canvases_per_forward"]
    keys = [key for key in measured(rows) if key[1] not in leave_out]
    metrics = [metric for _, metric in keys]  # a title names the task where two have the metric
    shared = {metric for metric in metrics if metrics.count(metric) > 1}
    columns = [
        Column(heading(m) + (f" ({task})" if m in shared else ""), m, task, direction(m))
        for task, m in keys
    ] + [Column(COST[key].title, key, None, COST[key].better) for key in costs]
    cells = [
        [(s := part["tasks"].get(task, {}).get(metric)) and Cell.of(s) for task, metric in keys]
        + [Cell(COST[k].shown(part["cost"], k)) if k in part["cost"] else None for k in costs]
        for part in rows.values()
    ]
    return Table(columns, list(rows), cells)


def direction(metric: str) -> int:
    """1 if more of a metric is better, -1 if less is."""
    return -1 if LOWER & _words(metric) else 1


def is_share(metric: str) -> bool:
    """Whether a metric lies between 0 and 1, by its name."""
    return bool(SHARES & _words(metric))


def _words(metric: str) -> set[str]:
    return set(re.split(r"[^a-z]+", metric.lower()))


def heading(metric: str) -> str:
    """A metric's name as people read it; a check of the corpus goes by what it checks."""
    return TITLES.get(metric, metric.removeprefix("agreement_").replace("_", " "))


def _digits(value: float) -> str:
    return f"{value:{',.0f' if abs(value) >= 100 else '.3g' if abs(value) >= 10 else '.3f'}}"
