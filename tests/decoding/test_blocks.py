"""Block diffusion: SDAR's own decodes token for token, and the laws of writing block after block."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import dlmjoint
from dlmjoint.decoding.cache import CachePolicy, NoCache
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.exact_blocks import ExactBlocks
from dlmjoint.decoding.order import HighProbability, LeftToRight
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.sdar import BlockSteady, BlockThreshold, tokens_of
from dlmjoint.models.sdar import Sdar
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from tests.conftest import GOLDEN
from tests.decoding.policies import random_block_policy
from tests.decoding.worlds import World, random_world

EXPECTED = load_file(GOLDEN / "sdar" / "expected.safetensors")
META = json.loads((GOLDEN / "sdar" / "meta.json").read_text())
DECODES = sorted(name for name in EXPECTED if "_steps" in name)


def _policy(name: str, cache: CachePolicy) -> tuple[Policy, str]:
    strategy, prompt, steps, threshold = name.rsplit("_", 3)
    counts = tokens_of(META["block_size"], int(steps.removeprefix("steps")))
    schedule = BlockSteady(counts)
    if strategy == "low_confidence_dynamic":
        schedule = BlockThreshold(counts[0], float(threshold.removeprefix("t")))
    order = LeftToRight() if strategy == "sequential" else HighProbability()
    return Policy(schedule, order=order, cache=cache), prompt.removeprefix("p")


@pytest.mark.parametrize("cache", [NoCache(), ExactBlocks()], ids=["full", "cached"])
@pytest.mark.parametrize("name", DECODES)
def test_sdars_strategies_reproduce_the_released_decodes(
    golden_sdar: TransformerBase, name: str, cache: CachePolicy
) -> None:
    policy, prompt = _policy(name, cache)
    policy = replace(policy.prepare(golden_sdar), draw=Draw(temperature=0))
    canvas = golden_sdar.canvas(EXPECTED[f"prompt_{prompt}"].tolist(), META["gen_length"][prompt])
    steps = list(decode(golden_sdar, canvas, policy, Noise(0, (0,))))
    assert torch.equal(steps[-1].canvas.tokens, EXPECTED[name])


MIXED = [[5, 6, 7, 8, 9, 10, 11], [5], [6, 7, 8, 9], [5, 6]]
"""Prompts that end in every place of a block of four."""


@pytest.fixture(scope="module")
def sdar() -> World:
    return random_world(Sdar)


@pytest.mark.parametrize("part", range(8))
def test_cached_equals_uncached_for_random_policies(sdar: World, part: int) -> None:
    for seed in range(25 * part, 25 * (part + 1)):
        full = random_block_policy(seed, sdar)
        cached = replace(full, cache=ExactBlocks())
        made = [
            dlmjoint.generate(sdar.base, MIXED, policy, 13, seed=seed) for policy in (full, cached)
        ]
        assert made[0].sequences == made[1].sequences, (seed, full)
        for name in ("base_forwards", "sampler_passes", "guide_passes", "tokens"):
            assert getattr(made[0].tally, name) == getattr(made[1].tally, name), (seed, full)
