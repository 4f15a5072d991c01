"""Logits are worked on in parts: the same result in bounded memory."""

import pytest
import torch

from dlmjoint.decoding import draw
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw, in_parts
from dlmjoint.decoding.early_rules.prophet import Prophet, Staged
from dlmjoint.decoding.policy import Policy
from dlmjoint.models.dream import Dream
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from dlmjoint.types import Step
from tests.live_bytes import most_live_bytes

NOW = Prophet(Staged(-1e9, -1e9, -1e9))
"""Finishes every row in its first forward."""
POLICIES = [Policy(), Policy(4), Policy(draw=Draw(0.7, 0.8)), Policy(early=NOW)]


def _steps(base: TransformerBase, policy: Policy, rows: int, columns: int) -> list[Step]:
    canvas = base.canvas([[1]] * rows, columns)
    noise = Noise(5, tuple(range(rows)))
    return list(decode(base, canvas, policy.prepare(base), noise))


@pytest.mark.parametrize("cells", [1, 5])
@pytest.mark.parametrize("policy", POLICIES, ids=["exact", "k4", "nucleus", "early"])
def test_a_decoding_in_parts_is_the_decoding_at_once(
    golden_dream: TransformerBase, policy: Policy, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _steps(golden_dream, policy, rows=3, columns=8)
    monkeypatch.setattr(draw, "CHUNK", cells * golden_dream.vocab_size)
    found = _steps(golden_dream, policy, rows=3, columns=8)
    for step, other in zip(expected, found, strict=True):
        assert torch.equal(step.canvas.tokens, other.canvas.tokens)
        for commit, same in zip(step.commits, other.commits, strict=True):
            assert torch.equal(commit.columns, same.columns)
            torch.testing.assert_close(commit.log_probs, same.log_probs, rtol=1e-5, atol=1e-6)


def test_parts_cover_every_cell_once_and_hold_no_more_than_a_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draw, "CHUNK", 100)
    for cells, vocab_size in ((0, 10), (1, 10), (10, 10), (11, 10), (3, 1000)):
        parts = [list(range(cells))[part] for part in in_parts(cells, vocab_size)]
        assert [cell for part in parts for cell in part] == list(range(cells))
        assert all(len(part) <= max(1, 100 // vocab_size) for part in parts)


@pytest.mark.parametrize("policy", [Policy(), Policy(early=NOW)], ids=["exact", "early"])
def test_memory_does_not_grow_with_the_number_of_masked_cells(
    random_dream: Dream, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, vocabulary = 4, 20_000
    random_dream.vocab_size = vocabulary
    head = torch.nn.Linear(random_dream.hidden_size, vocabulary, bias=False).requires_grad_(False)
    random_dream.network.lm_head = head
    monkeypatch.setattr(draw, "CHUNK", 4 * vocabulary)
    prepared = policy.prepare(random_dream)

    def most(columns: int) -> int:
        canvas = random_dream.canvas([[1]] * rows, columns)
        noise = Noise(0, tuple(range(rows)))
        return most_live_bytes(lambda: next(decode(random_dream, canvas, prepared, noise)))

    most(8)  # constants of the vocabulary are made once
    one_distribution = 8 * vocabulary
    assert most(40) - most(8) < one_distribution
