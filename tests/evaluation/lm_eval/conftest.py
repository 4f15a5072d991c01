"""A base, and a file of problems."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from lm_eval.tasks._index import Entry, TaskIndex

from dlmjoint.models.load import load_base
from tests.evaluation.lm_eval.asking import BASE, PROBLEMS, written


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(autouse=True)
def _no_census(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval starts a dozen programs after each evaluation to describe the machine in its results:
    no test here reads that."""
    for asking in ("add_env_info", "get_git_commit_hash"):
        monkeypatch.setattr(f"lm_eval.evaluator.{asking}", lambda *results: None)


BUILD = TaskIndex.build


@cache
def _index(folder: Path, resolve_includes: bool) -> dict[str, Entry]:
    return BUILD([folder], resolve_includes=resolve_includes)


@pytest.fixture(autouse=True)
def _tasks_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval reads its 14,000 files of tasks for every manager: once is enough for all tests."""

    def build(paths: Iterable[Path], *, resolve_includes: bool = True) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for folder in paths:
            found |= _index(folder, resolve_includes)
        return found

    monkeypatch.setattr(TaskIndex, "build", staticmethod(build))


@pytest.fixture(scope="module")
def tiny():
    return load_base(BASE)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return written(tmp_path / "test.jsonl", PROBLEMS)
