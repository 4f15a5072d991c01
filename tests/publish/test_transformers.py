"""transformers' `generate` with a sampler."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import dlmjoint
from dlmjoint.custom_generate import base_of, generate_jointly
from dlmjoint.errors import ConfigError
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from tests.conftest import CHECKPOINTS


def _call(base: Dream, sampler: JointSampler, **given: Any) -> torch.Tensor:
    return generate_jointly(base.network, sampler, max_new_tokens=8, **given)


def test_transformers_generate_writes_what_dlmjoint_generate_does(
    random_dream: Dream, random_sampler: JointSampler
) -> None:
    prompts = torch.tensor([[1, 5, 6], [1, 7, 8]])
    for given, draw in (
        ({}, dlmjoint.Draw(temperature=0.0)),
        ({"do_sample": True, "temperature": 0.7}, dlmjoint.Draw(temperature=0.7)),
    ):
        policy = dlmjoint.Policy(4, refine=dlmjoint.Joint(random_sampler), draw=draw)
        expected = dlmjoint.generate(random_dream, prompts, policy, max_new_tokens=8, seed=3)
        found = _call(random_dream, random_sampler, inputs=prompts, seed=3, **given)
        assert found.tolist() == expected.sequences


def test_transformers_left_padding_changes_nothing(
    random_dream: Dream, random_sampler: JointSampler
) -> None:
    padded = torch.tensor([[0, 0, 1, 5], [1, 7, 8, 9]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    found = _call(random_dream, random_sampler, input_ids=padded, attention_mask=mask)
    alone = _call(random_dream, random_sampler, input_ids=padded[:1, 2:])
    assert found[0, 2:].tolist() == alone[0].tolist()
    assert found[:, :4].tolist() == padded.tolist()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda b, s: _call(b, s), "give the prompts' ids once"),
        (lambda b, s: _call(b, s, inputs=torch.ones(1, 2), input_ids=torch.ones(1, 2)), "once"),
        (lambda b, s: _call(b, s, inputs=torch.tensor([[1, 2]]), attention_mask=torch.tensor([[1, 0]])), "pad prompts on the left"),
        (lambda b, s: b.network.generate(torch.tensor([[1, 2]])), "has no next token"),
    ],
)  # fmt: skip
def test_what_transformers_could_ask_in_vain_is_refused(
    call: Callable[[Dream, JointSampler], Any],
    said: str,
    random_dream: Dream,
    random_sampler: JointSampler,
) -> None:
    with pytest.raises(ConfigError, match=said):
        call(random_dream, random_sampler)


def test_a_network_knows_the_tokens_its_tokenizer_does_not() -> None:
    base = load_base(CHECKPOINTS / "tiny-dream")
    assert base_of(base.network).forbidden_ids == base.forbidden_ids
    assert len(base.forbidden_ids) > 1
