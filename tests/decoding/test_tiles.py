"""Looks and draws tile by tile: what the ones over the whole vocabulary find."""

import json
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from dlmjoint.decoding.looks.tiles import drawn, in_tiles, numbers
from dlmjoint.models.base import IMPOSSIBLE
from dlmjoint.random import Noise, words
from tests.decoding.tiled import CELLS, drawn_whole, looked_at

SIZES = (151, 512, 3072, 126_464, 152_064)
"""A vocabulary that no smaller number divides, and those of LLaDA and Dream."""


def _logits(vocab_size: int) -> Tensor:
    """Of several kinds of cells: almost certain ones, ties, tiles in which nothing is possible."""
    logits = 4 * torch.randn(CELLS, vocab_size, generator=torch.Generator().manual_seed(0))
    logits[4::8, 0] += 60
    logits[1::2, -vocab_size // 2 :] = IMPOSSIBLE
    logits[2::8] = logits[2::8].round()
    return logits


@pytest.mark.parametrize("vocab_size", SIZES)
def test_a_look_in_tiles_is_the_same_look(vocab_size: int) -> None:
    logits = _logits(vocab_size)
    for tiled, whole in zip(numbers(in_tiles(logits)), looked_at(logits), strict=True):
        torch.testing.assert_close(tiled, whole, rtol=1e-6, atol=0)


@pytest.mark.parametrize("vocab_size", SIZES)
def test_a_draw_in_tiles_draws_the_same_tokens(vocab_size: int) -> None:
    logits, noise, rows = _logits(vocab_size), Noise(0, tuple(range(CELLS))), torch.arange(CELLS)
    tiles, line = in_tiles(logits), noise.line(rows, torch.zeros_like(rows))
    known = words(vocab_size, logits.device).view(tiles.shape[1:])
    tokens, log_probs = drawn(tiles, *line, known)
    expected = drawn_whole(logits, noise)
    assert torch.equal(tokens, expected[0])
    assert len(set(tokens.tolist())) > CELLS / 2
    torch.testing.assert_close(log_probs, expected[1], rtol=1e-6, atol=0)


@cache
def _compiled() -> dict[str, Any]:
    # In a process of its own: the checks of shapes cannot be compiled.
    script = [sys.executable, "-m", "tests.decoding.compiled_tiles"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["look", "draw"])
def test_compiled_nothing_as_wide_as_the_vocabulary_is_written(what: str) -> None:
    told = _compiled()[what]
    assert told["kernels"] == 1
    assert len(told["buffers"]) >= 4  # what is kept
    assert not [one for one in told["buffers"] for wide in told["wide"] if wide in one]
    assert told["untouched"]
    assert told["apart"] < 1e-6
    assert told["apart where words tie"] < 1e-6


@pytest.mark.slow
def test_a_compiled_look_takes_every_logit_from_memory_once() -> None:
    told = _compiled()["look"]
    assert told["loops over words"] == 0
    # For its greatest, then for its sums: 2 kB, which a cache still holds.
    assert told["loops over a tile"] == 2
    assert told["loops over all tiles"] == 1
