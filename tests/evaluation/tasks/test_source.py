"""Rows of local files: formats, columns, what is refused."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.tasks.kinds.source import Place, is_file, rows

ROWS = [{"q": "How many?", "a": "5"}, {"q": "Why, then?", "a": "because"}]


def _rows(source: Path | str, needed=("q", "a"), optional=(), names=None):
    return rows(Place(str(source)), needed, optional, names)


def test_every_format_gives_the_same_rows(tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "r.json").write_text(json.dumps(ROWS))
    (tmp_path / "r.jsonl").write_text(lines)
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "r.csv").write_text('q,a\nHow many?,5\n"Why, then?",because\n')
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "r.parquet")
    for name in ("r.json", "r.jsonl", "r.jsonl.gz", "r.csv", "r.parquet"):
        assert _rows(tmp_path / name) == ROWS, name


def test_a_hub_id_is_no_file():
    assert is_file("here/rows.jsonl.gz")
    assert not is_file("openai/gsm8k")


def test_a_file_is_one_place():
    assert Place.of("rows.csv", "main", "test", "abc") == Place("rows.csv")
    assert Place.of("who/what", "main", "test", "abc") == ("who/what", "main", "test", "abc")


def test_columns_have_the_names_the_task_knows(write):
    source = write([{"asked": "How many?", "a": "5"}])
    assert _rows(source, names={"q": "asked"}) == [{"q": "How many?", "a": "5"}]


def test_columns_that_may_be_missing_are_read_where_they_are(write):
    source = write(ROWS)
    assert _rows(source, needed=("q",), optional=("a", "b")) == ROWS
    with pytest.raises(DataError, match="no column 'c'"):
        _rows(source, needed=("q",), optional=("b",), names={"b": "c"})


def test_a_missing_column_is_named_with_those_there_are(write):
    with pytest.raises(DataError, match=r"no column 'z'; it has \['q', 'a'\].*columns: {z"):
        _rows(write(ROWS), needed=("q", "z"))


def test_a_name_of_no_column_is_refused(write):
    with pytest.raises(ConfigError, match="'question'; the task reads q, a"):
        _rows(write(ROWS), names={"question": "q"})


def test_an_empty_cell_is_refused(write):
    with pytest.raises(DataError, match="row 1: the column 'a' is empty"):
        _rows(write([ROWS[0], {"q": "Why?", "a": None}]))


def test_a_source_that_does_not_load_says_why(tmp_path):
    with pytest.raises(DataError, match="does not load"):
        _rows(tmp_path / "absent.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"q": ')
    with pytest.raises(DataError, match="does not load"):
        _rows(tmp_path / "broken.jsonl")
    with pytest.raises(DataError, match="does not load"):
        _rows("nobody/has-this-data-set")
