"""The look at a cell's logits: the same number whatever lies beside it, to seven digits."""

from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from dlmjoint.decoding.looks.look import Look, look_at

WIDE = 152_064
SIZES = {151: range(1, 34), 512: range(1, 34), 3072: range(1, 34), WIDE: (1, 2, 3, 7, 16, 33)}
"""Numbers of cells per vocabulary: one that no smaller number divides, and Dream's own among them."""


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _logits(cells: int, vocab_size: int) -> Tensor:
    return 4 * torch.randn(cells, vocab_size, generator=torch.Generator().manual_seed(0))


def _moved(logits: Tensor, floats: int) -> Tensor:
    """A copy that begins so many floats behind an aligned address."""
    moved = torch.empty(logits.numel() + floats)[floats:].view_as(logits)
    return moved.copy_(logits)


def _numbers(look: Look) -> dict[str, Tensor]:
    named = {field.name: getattr(look, field.name) for field in fields(look)}
    return {name: number for name, number in named.items() if number is not None}


@pytest.mark.parametrize("vocab_size", SIZES)
def test_a_cell_looks_the_same_in_any_batch_and_anywhere_in_memory(
    vocab_size: int, threads: int
) -> None:
    logits = _logits(33, vocab_size)
    whole = _numbers(look_at(logits.clone(), None))
    # Threads that wait for each other's core spin: with two of them, fewer sizes.
    for cells in SIZES[vocab_size] if threads == 1 else (1, 2, 33):
        for first in {0, (33 - cells) // 2, 33 - cells}:
            for floats in (0, 5):
                some = slice(first, first + cells)
                alone = _numbers(look_at(_moved(logits[some], floats), None))
                assert all(torch.equal(alone[name], whole[name][some]) for name in whole)


@pytest.mark.parametrize("vocab_size", SIZES)
def test_sums_over_the_vocabulary_are_right_to_six_digits_where_hardly_anything_is_left(
    vocab_size: int,
) -> None:
    logits = _logits(8, vocab_size)
    logits[4:, 0] += 60
    behind = (logits - logits.amax(-1, keepdim=True)).double()
    odds = behind.exp().masked_fill(behind == 0, 0)
    look = look_at(logits, None)
    torch.testing.assert_close(look.others.double(), odds.sum(-1), rtol=1e-6, atol=0)
    torch.testing.assert_close(look.spread.double(), (behind * odds).sum(-1), rtol=1e-6, atol=0)
