"""The checks of shapes and types that every other test runs under."""

import jaxtyping
import pytest
import torch
from jaxtyping import TypeCheckError

from dlmjoint.types import Canvas
from tests import ALL, STRIDE

IDS = torch.zeros(1, 2, dtype=torch.long)
WRONG = torch.zeros(1, 2)
"""Floats, where a canvas has ids."""


def _canvas(tokens: torch.Tensor) -> Canvas:
    return Canvas(tokens, torch.ones(1, 2, dtype=torch.bool), slice(1, 2), mask_id=9)


def test_the_first_calls_of_a_test_are_all_checked() -> None:
    for _ in range(ALL - 1):
        _canvas(IDS)
    with pytest.raises(TypeCheckError):
        _canvas(WRONG)


def test_of_many_more_calls_one_in_so_many_is_checked() -> None:
    for _ in range(ALL):
        _canvas(IDS)
    refused = 0
    for _ in range(20 * STRIDE):
        try:
            _canvas(WRONG)
        except TypeCheckError:
            refused += 1
    assert refused == 20


@pytest.mark.slow
def test_a_slow_test_is_checked_throughout() -> None:
    assert jaxtyping.config.jaxtyping_disable is False
