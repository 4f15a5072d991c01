"""The reports of scored runs: tables for the terminal and in Markdown, a picture, a page."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable

from dlmjoint.disk.provenance import write_text
from dlmjoint.evaluation.telling.plot import draw_quality
from dlmjoint.evaluation.telling.report.page import write_report
from dlmjoint.evaluation.telling.report.runs import Run, read_runs
from dlmjoint.evaluation.telling.table import COSTS, DETAILS, Table, table_of


def report(run_dir: Path) -> RichTable:
    """Write `quality.png`, `table.md` and `report.html` of a scored run; return the table for the
    terminal.

    Raises DataError if the run was not scored, or if its generations are not there.
    """
    run = Run.read(run_dir)
    draw_quality(run.scores, run_dir / "quality.png")
    write_text(run_dir / "table.md", table_of({"": run.scores}, costs=COSTS).markdown())
    write_report(run_dir / "report.html", [run])
    return table_of({"": run.scores}, leave_out=DETAILS).rich()


def compare(folders: Sequence[Path], output: Path | None = None) -> Table:
    """Several runs in one table, their decoders as rows `run/decoder`; `.rich()` and `.markdown()`
    draw it. In the folder `output` it is written as `table.md`, and `report.html` of all runs.

    MAUVE compares only between runs with the same n, base, featurizer and reference seed; the page
    says what differs. Raises ConfigError for no run, DataError for a run that was not scored.
    """
    runs = read_runs(folders)
    scores = {run.name: run.scores for run in runs}
    if output is not None:
        write_text(output / "table.md", table_of(scores, costs=COSTS).markdown())
        write_report(output / "report.html", runs)
    return table_of(scores, leave_out=DETAILS)
