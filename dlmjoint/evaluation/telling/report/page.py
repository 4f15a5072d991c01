"""The page of one or several scored runs: one file that needs nothing else."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlmjoint.decoding.policy import Policy
from dlmjoint.disk.provenance import write_text
from dlmjoint.errors import LoadError
from dlmjoint.evaluation.running import settings
from dlmjoint.evaluation.scoring.aup import family
from dlmjoint.evaluation.telling.plot import numbered
from dlmjoint.evaluation.telling.report import figures
from dlmjoint.evaluation.telling.report.examples import Browser
from dlmjoint.evaluation.telling.report.runs import Run, departures, merged
from dlmjoint.evaluation.telling.table import (
    CEILING,
    COST,
    Cell,
    Table,
    direction,
    heading,
    measured,
    table_of,
)
from dlmjoint.show.template import render

log = logging.getLogger(__name__)

LIMIT = 5_000_000
"""Bytes of a page, at most."""


@dataclass(frozen=True)
class Mark:
    """A cell of a table and how it stands in its column."""

    cell: Cell | None
    best: bool = False
    tied: bool = False
    """Not the best, but its interval reaches into the best's."""


@dataclass(frozen=True)
class Pair:
    """A decoder beside the run's first, by one metric."""

    difference: Cell
    p_value: float
    better: int
    """1 where the whole interval is on the better side of 0, -1 on the worse, 0 on neither."""
    reach: float
    """The longest arm of the column's intervals: what half a bar's width stands for."""

    @property
    def p_text(self) -> str:
        """As it is written."""
        return "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.2g}"

    def place(self, value: float) -> float:
        """Where a value is on a bar, in per cent of its width."""
        return 50 + 50 * value / self.reach


@dataclass(frozen=True)
class Pairs:
    """The paired comparisons of a run's task."""

    first: str
    task: str
    metrics: list[str]
    tests: list[str]
    rows: dict[str, list[Pair | None]]
    """By decoder, in the order of the metrics."""


def write_report(path: Path, runs: Sequence[Run]) -> None:
    """Write the page of some runs, atomically."""
    write_text(path, page(runs))


def page(runs: Sequence[Run], limit: int = LIMIT) -> str:
    """The page's HTML, no longer than `limit` bytes: as many examples are in it as fit."""
    rows = merged(runs)
    scores = {run.name: run.scores for run in runs}
    ceilings = runs[0].scores["ceiling"] if len(runs) == 1 else {}
    by_depth = [metric for _, metric in measured(rows) if figures.AT_DEPTH.fullmatch(metric)]
    table = _speed_first(table_of(scores, by_depth))
    costs = _costs(table_of(scores, costs=tuple(COST)))
    values = {
        "title": " · ".join(run.title for run in runs),
        "runs": runs,
        "departures": departures(runs),
        "table": table,
        "groups": _groups(table, rows),
        "marks": marks(table),
        "costs": costs,
        "cost_marks": marks(costs),
        "series": {name: numbered(rows)[family(name)] for name in rows},
        "families": list(numbered(rows)),
        "ceiling": CEILING,
        "pairs": [pairs for run in runs for pairs in _pairs(run)],
        "areas": [area for run in runs for area in _areas(run)],
        "quality": figures.quality(rows, ceilings),
        "depths": figures.depths(rows),
        "papers": figures.papers(rows),
        "policies": {name: departing(part["policy"]) for name, part in rows.items()},
        "heading": heading,
        "digits": lambda value: Cell(value).text,
        "parts": _parts,
    }
    rendered = partial(render, "dlmjoint.evaluation.telling.report", "report.html", **values)
    without = rendered(examples=None, lacking="")
    try:
        browser = Browser(runs)
    except LoadError as error:  # a run is read where its base is not, too
        log.warning("the report has no examples: %s", error)
        return rendered(examples=None, lacking=f"There are no examples in this page: {error}")
    room = limit - len(without.encode()) - _OVERHEAD
    return rendered(examples=browser.embed(room), lacking="")


_OVERHEAD = 300_000
"""Bytes the player and the lists of examples may need beside the examples."""


def marks(table: Table) -> list[list[Mark]]:
    """Every row's cells, the best decoder of a column marked where there are several."""
    found = [[Mark(cell) for cell in row] for row in table.cells]
    for place, column in enumerate(table.columns):
        cells = _competing(table, place)
        if len(cells) < 2 or not column.better:
            continue
        best = max(cells.values(), key=lambda cell: column.better * cell.value)
        for row, cell in cells.items():
            equal = cell.value == best.value
            found[row][place] = Mark(cell, equal, not equal and cell.overlaps(best))
    return found


def _competing(table: Table, place: int) -> dict[int, Cell]:
    """A column's cells by row; the ceiling is nobody's."""
    found = {}
    for row, (name, cells) in enumerate(zip(table.names, table.cells, strict=True)):
        cell = cells[place]
        if cell is not None and not name.endswith(CEILING):
            found[row] = cell
    return found


def departing(policy: Mapping[str, Any]) -> str:
    """A policy's description in words: its departures from the defaults."""
    usual = settings.describe(Policy())["init_args"]
    given = {k: v for k, v in policy["init_args"].items() if v != usual.get(k)}
    parts = [f"{key}={_spelled(value)}" for key, value in given.items()]
    return f"Policy({', '.join(parts)})"


def _spelled(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_spelled, value))}]"
    if not isinstance(value, dict):
        return str(value)
    if "class_path" in value:
        arguments = [f"{key}={_spelled(given)}" for key, given in value["init_args"].items()]
        return f"{value['class_path'].rpartition('.')[2]}({', '.join(arguments)})"
    if "object" in value:
        return value["object"].rpartition(".")[2]
    return "{" + ", ".join(f"{key}: {_spelled(item)}" for key, item in value.items()) + "}"


def _costs(table: Table) -> Table:
    """The costs that were spent at all, without the ceiling's empty row."""
    wanted = [
        place
        for place, column in enumerate(table.columns)
        if column.task is None and any(c.value for c in _competing(table, place).values())
    ]
    rows = [row for row, name in enumerate(table.names) if not name.endswith(CEILING)]
    return table.part(wanted, rows)


def _speed_first(table: Table) -> Table:
    """The same with the costs in front, where they are seen beside every metric."""
    places = range(len(table.columns))
    order = sorted(places, key=lambda place: table.columns[place].task is not None)
    return table.part(order, range(len(table.names)))


def _parts(name: str) -> list[str]:
    """A decoder's name, cut behind what joins its parts: there a line may end."""
    return re.findall(r"[^+/]+[+/]?|[+/]", name)


def _groups(table: Table, rows: figures.Rows) -> list[tuple[str, int, str]]:
    """Neighbouring columns of one task: its name, how many they are, their n in words."""
    found: list[tuple[str, int, str]] = []
    tasks = [column.task for column in table.columns]
    for task in dict.fromkeys(tasks):
        ns = {
            score["n"] for part in rows.values() for score in part["tasks"].get(task, {}).values()
        }
        words = "–".join(f"{n:,}" for n in sorted({min(ns), max(ns)})) if ns else ""
        name = "speed" if task is None else task.replace("_", " ")
        found.append((name, tasks.count(task), f"n = {words}" if words else ""))
    return found


def _pairs(run: Run) -> Iterator[Pairs]:
    for task, everything in run.scores.get("pairs", {}).items():
        metrics = {m: some for m, some in everything.items() if not figures.AT_DEPTH.fullmatch(m)}
        found: dict[str, list[Pair | None]] = {}
        for place, (metric, entries) in enumerate(metrics.items()):
            reach = max(
                (abs(e["difference"][end]) for e in entries for end in ("low", "high")), default=0
            )
            for entry in entries:
                row = found.setdefault(run.named(entry["b"]), [None] * len(metrics))
                row[place] = _pair(entry, direction(metric), reach or 1.0)
        entries = [entry for some in metrics.values() for entry in some]
        if entries:
            tests = sorted({entry["test"] for entry in entries})
            yield Pairs(run.named(entries[0]["a"]), task, list(metrics), tests, found)


def _pair(entry: Mapping[str, Any], better: int, reach: float) -> Pair:
    difference = entry["difference"]
    sign = 1 if difference["low"] > 0 else -1 if difference["high"] < 0 else 0
    return Pair(Cell.of(difference), entry["p_value"], better * sign, reach)


def _areas(run: Run) -> Iterator[tuple[str, str, Cell, str]]:
    """Task, family, AUP and the decoders it is of."""
    for task, methods in run.scores.get("aup", {}).items():
        for method, area in methods.items():
            yield task, run.named(method), Cell.of(area), ", ".join(area["decoders"])
