"""The bound on held-out functions."""

import math

import pytest
import torch

from dlmjoint.errors import DataError
from dlmjoint.evaluation.held_out import nelbo
from dlmjoint.models.load import load_base
from tests.evaluation.conftest import GOLDEN

TEXTS = ["def f(x):\n    return x", "def g(x):\n    return x + 1", "x" * 400]


def test_a_base_that_knows_nothing_pays_for_every_column_of_the_canvas() -> None:
    base = load_base(GOLDEN)
    with torch.no_grad():
        base.network.lm_head.weight.zero_()
    score = nelbo(base, TEXTS, samples=2, seed=0)
    tokens = sum(len(base.encode(text)) + 1 for text in TEXTS[:2])
    choices = base.vocab_size - len(base.forbidden_ids)
    assert score.n == 2
    assert score.value == pytest.approx(2 * 47 * math.log(choices) / tokens, rel=1e-6)


def test_functions_that_fit_no_canvas_are_nothing_to_measure() -> None:
    with pytest.raises(DataError):
        nelbo(load_base(GOLDEN), ["x" * 400], samples=2, seed=0)
