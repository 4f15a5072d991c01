"""Rows of a data set: of the hub, or of a local file."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlmjoint.disk.paths import expanded
from dlmjoint.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
"""Local files, and what `datasets` calls their format; any of them may be packed as `.gz`."""


class Place(NamedTuple):
    """Where rows are."""

    source: str
    """Hub id, or a local file."""
    subset: str | None = None
    """The hub data set's configuration."""
    split: str = "train"
    """The hub data set's split."""
    revision: str | None = None
    """The hub data set's commit."""

    @classmethod
    def of(cls, source: str, subset: str | None, split: str, revision: str | None) -> "Place":
        """A file is one place: it has none of the others. lm-eval hands its settings on as they are,
        `~` and all."""
        if is_file(source):
            return cls(expanded(source))
        return cls(source, subset, split, revision)


def is_file(source: str) -> bool:
    """Whether a source is a local file rather than a hub id, by its ending."""
    return _ending(source) in FORMATS


def rows(
    place: Place,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """All rows, with the columns `needed` and those of `optional` that are there.

    `names` says what a column is called in the source where its name differs. Raises ConfigError for a name of no column, DataError if the source does not
    load, lacks a column, or has an empty cell in a needed one.
    """
    names = names or {}
    if unknown := sorted(names.keys() - {*needed, *optional}):
        known = ", ".join([*needed, *optional])
        raise ConfigError(f"columns names {unknown[0]!r}; the task reads {known}")
    data, source = _load(place), place.source
    known = {column: names.get(column, column) for column in (*needed, *optional)}
    for column, name in known.items():
        if name not in data.column_names and (column in needed or column in names):
            raise DataError(
                f"{source} has no column {name!r}; it has {data.column_names}. Name yours under "
                f"columns: {{{column}: …}}"
            )
    present = {column: name for column, name in known.items() if name in data.column_names}
    found = [
        {column: row[name] for column, name in present.items()}
        for row in data.select_columns(list(present.values())).to_list()
    ]
    for index, row in enumerate(found):
        empty = [present[column] for column in needed if row[column] is None]
        if empty:
            raise DataError(f"{source}, row {index}: the column {empty[0]!r} is empty")
    return found


def _ending(source: str) -> str:
    return Path(source.removesuffix(".gz")).suffix


@lru_cache(maxsize=8)
def _load(place: Place) -> "Dataset":
    """A data set; opened once, since run and scores ask again."""
    from datasets import load_dataset  # takes long to import
    from datasets.exceptions import DatasetsError

    source, subset, split, revision = place
    try:
        if is_file(source):
            return load_dataset(FORMATS[_ending(source)], data_files=source, split=split)
        return load_dataset(source, name=subset, split=split, revision=revision)
    except (OSError, ValueError, DatasetsError) as error:
        raise DataError(f"the data set {source} does not load: {error}") from error
