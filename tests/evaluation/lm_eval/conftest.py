"""A base, and a file of problems."""

from pathlib import Path

import pytest

from dlmjoint.models.load import load_base
from tests.evaluation.lm_eval.asking import BASE, PROBLEMS, written


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def tiny():
    return load_base(BASE)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return written(tmp_path / "test.jsonl", PROBLEMS)
