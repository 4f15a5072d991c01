"""The distribution tokens are drawn from."""

import math

import pytest
import torch

from dlmjoint.decoding.draw import Draw, forbid
from dlmjoint.decoding.looks.sent import sent
from dlmjoint.decoding.order import entropy
from dlmjoint.errors import ConfigError
from dlmjoint.models.dream import Dream
from dlmjoint.models.transformer import TransformerBase


def test_the_nucleus_is_the_smallest_set_that_exceeds_top_p() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    kept = Draw(top_p=0.7).log_probs(logits).exp()
    torch.testing.assert_close(kept, torch.tensor([[2 / 3, 1 / 3, 0, 0]]).double())


def test_the_most_probable_token_survives_any_top_p() -> None:
    logits = torch.tensor([[0.1, 0.9]]).log()
    torch.testing.assert_close(
        Draw(top_p=1e-6).log_probs(logits).exp(), torch.tensor([[0.0, 1.0]]).double()
    )


def test_temperature_divides_the_logits() -> None:
    logits = torch.randn(3, 7)
    expected = (logits.double() / 0.3).log_softmax(-1)
    torch.testing.assert_close(Draw(temperature=0.3).log_probs(logits), expected)


def test_forbidding_leaves_the_callers_logits_alone() -> None:
    logits = torch.zeros(2, 4)
    assert forbid(logits, [1])[0, 1] == -math.inf
    assert logits.abs().sum() == 0


def test_token_strings_are_resolved_by_the_bases_tokenizer(golden_dream: TransformerBase) -> None:
    prepared = Draw(forbid=("<|endoftext|>", 7)).prepare(golden_dream)
    assert prepared.forbid == (7, 500, 510, 511)


def test_an_unknown_token_string_is_refused(
    golden_dream: TransformerBase, random_dream: Dream
) -> None:
    for base in (golden_dream, random_dream):
        with pytest.raises(ConfigError, match="nonsense"):
            Draw(forbid=("nonsense",)).prepare(base)


def test_entropy_is_that_of_the_possible_tokens() -> None:
    log_probs = torch.tensor([0.5, 0.5, 0.0]).log()
    torch.testing.assert_close(entropy(log_probs), torch.tensor(math.log(2)))


def test_constants_that_are_equal_but_of_another_kind_are_not_taken_for_each_other() -> None:
    cpu = torch.device("cpu")
    assert [sent(values, cpu).dtype for values in ((0, 1), (0.0, 1.0))] == [
        torch.long,
        torch.float64,
    ]
    assert [sent(values, cpu).dtype for values in ((2.0, 3.0), (2, 3))] == [
        torch.float64,
        torch.long,
    ]
