"""Schedules that decide for themselves how many tokens a forward writes."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import dlmjoint
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.order import HighProbability
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.decoding.schedules.budget import Budget
from dlmjoint.decoding.schedules.confidence import ConfidenceFactor, ConfidenceThreshold
from dlmjoint.decoding.schedules.entropy_bound import EntropyBound
from dlmjoint.errors import ConfigError
from dlmjoint.models.joint import JointSampler
from dlmjoint.random import Noise
from tests.decoding.rectangles import cells_of
from tests.decoding.worlds import GREEDY, LENGTH, PROMPTS, World, sequences


def test_a_budget_of_nothing_is_exact_decoding(world: World) -> None:
    exact = Policy()
    dial = replace(exact, commits_per_forward=Budget(0.0, rate=(1.0,)), refine=Joint(world.sampler))
    tight = dlmjoint.generate(world.base, PROMPTS, dial, LENGTH, seed=2)
    assert tight.sequences == sequences(world.base, exact)


def test_a_larger_budget_never_writes_fewer_tokens_in_the_first_forward(world: World) -> None:
    counts = []
    for nats in (0.0, 0.5, 2.0, 1e9):
        policy = Policy(Budget(nats, rate=(1.0,), cap=6), refine=Joint(world.sampler)).prepare(
            world.base
        )
        canvas = world.base.canvas(PROMPTS, LENGTH)
        first = next(decode(world.base, canvas, policy, Noise(0, (0, 1, 2))))
        counts.append([int(first.canvas.masked[row].sum()) for row in range(3)])
    for fewer, more in pairwise(counts):
        assert all(b <= a for a, b in zip(fewer, more, strict=True))
    assert counts[-1] == [LENGTH - 6] * 3


@torch.no_grad()
def test_the_confidence_threshold_writes_exactly_the_columns_above_it(world: World) -> None:
    base = world.base
    canvas = base.canvas([[5, 6]], LENGTH)
    draw = GREEDY.prepare(base)
    log_probs = draw.log_probs(base.unembed(base.predict(canvas).hidden[0, canvas.response]))
    confidence = log_probs.exp().amax(-1)
    threshold = float(confidence.sort(descending=True).values[3:5].mean())
    policy = Policy(ConfidenceThreshold(threshold), order=HighProbability(), draw=GREEDY)
    first = next(decode(base, canvas, policy.prepare(base), Noise(0, (0,))))
    written = ~first.canvas.masked[0, canvas.response]
    assert torch.equal(written, confidence >= threshold)


def test_the_factor_rule_stops_at_the_first_token_unsure_for_its_number() -> None:
    probabilities = torch.tensor([0.99, 0.9, 0.8, 0.7])
    cells = cells_of(torch.stack([probabilities, 1 - probabilities], -1).log()[None])
    depth, nothing = torch.arange(4)[None], torch.zeros(1, 4, dtype=torch.float64)
    accepted = ConfidenceFactor(0.5).allows(depth, cells, nothing)
    assert accepted.tolist() == [[True, True, False, False]]  # (n + 1)(1 - c): 0.02, 0.3, 0.8, 1.5


def test_the_entropy_bound_counts_all_but_the_last_token() -> None:
    bound, cells = EntropyBound(1.0), cells_of(torch.zeros(1, 4, 2))
    depth = torch.arange(4)[None]
    spent = bound.price(depth, cells).cumsum(-1) - bound.price(depth, cells)
    accepted = bound.allows(depth, cells, spent)
    # 0, ln 2, 2 ln 2: the second is still within
    assert accepted.tolist() == [[True, True, False, False]]


def test_a_sampler_that_carries_its_prices_leaves_one_dial(dream: World) -> None:
    sampler = JointSampler.from_base(dream.base, gain=1.0).eval()
    policy = Policy(Budget(1.5), refine=Joint(sampler))
    with pytest.raises(ConfigError, match="needs the price of a token"):
        policy.prepare(dream.base)
    sampler.config.price_per_nat = [0.5, 0.9]
    told = replace(policy, commits_per_forward=Budget(1.5, rate=(0.5, 0.9)))
    assert sequences(dream.base, policy) == sequences(dream.base, told)


def test_marginals_have_no_prices_of_their_own(dream: World) -> None:
    with pytest.raises(ConfigError, match="needs the price of a token"):
        Policy(Budget(1.5)).prepare(dream.base)
