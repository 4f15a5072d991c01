"""The code world's checks as a metric."""

import json
from pathlib import Path

import pytest

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.metrics.python_function import PythonFunction
from dlmjoint.models.dream import Dream
from tests.evaluation.test_metrics import evidence

KNOWN = "def area(self, scale):\n    return self.width * scale"
TEXTS = [
    KNOWN,
    KNOWN.replace("area", "renamed"),
    "def f(x):\n    return y",
    "def f(x):\n    return (x",
]


def test_shares_are_of_all_texts() -> None:
    scores = PythonFunction()(evidence(TEXTS))
    assert {name: score.value for name, score in scores.items()} == {
        "parses": 0.75,
        "defined": 0.5,
        "used": 0.5,
    }
    assert scores["parses"].n == 4


def test_texts_of_which_none_parses_have_scores_too() -> None:
    scores = PythonFunction()(evidence(["def f(", ""]))
    assert [score.value for score in scores.values()] == [0, 0, 0]


def test_a_completion_is_read_with_its_prompt() -> None:
    found = evidence(["return (self, x)"], prompts=["def f(self, x):\n    "])
    assert PythonFunction(prompted=True)(found)["defined"].value == 1
    assert PythonFunction()(found)["parses"].value == 0


def test_a_function_of_training_is_verbatim_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(KNOWN) + "\n")
    metric = PythonFunction(corpus=str(tmp_path))
    metric.fits(Dream.random())
    assert metric(evidence(TEXTS))["verbatim"].value == 0.5


def test_a_corpus_that_is_not_there_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.code_corpus"):
        PythonFunction(corpus=str(tmp_path)).fits(Dream.random())
