"""Several scored runs in one table."""

from collections.abc import Sequence
from pathlib import Path

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.report import read_scores
from dlmjoint.evaluation.table import DETAILS, Table, table_of


def compare(runs: Sequence[Path]) -> Table:
    """The runs' decoders as rows `run/decoder`; `.rich()` and `.markdown()` draw it.

    MAUVE compares only between runs with the same n, base, featurizer and reference seed.
    """
    if not runs:
        raise ConfigError("there is nothing to compare: name at least one run_dir")
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    scores = {name: read_scores(run) for name, run in zip(names, runs, strict=True)}
    return table_of(scores, leave_out=DETAILS)
