"""Block diffusion: SDAR's own decodes token for token, and the laws of writing block after block."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import dlmjoint
from dlmjoint.decoding.cache import CachePolicy, NoCache
from dlmjoint.decoding.caches.exact_blocks import ExactBlocks
from dlmjoint.decoding.caches.freecache import FreeCache
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.order import HighProbability, LeftToRight
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.schedules.entropy_bound import EntropyBound
from dlmjoint.decoding.schedules.sdar import BlockSteady, BlockThreshold, tokens_of
from dlmjoint.errors import ConfigError
from dlmjoint.models.causal import Autoregressive
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.models.parts.canvas_cache import GROWTH
from dlmjoint.models.sdar import Sdar
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from tests.conftest import CHECKPOINTS, GOLDEN
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


@pytest.mark.parametrize(
    "part", [*range(4), *(pytest.param(part, marks=pytest.mark.slow) for part in range(4, 8))]
)
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


@pytest.mark.parametrize("part", range(4))
def test_a_row_alone_is_decoded_as_in_a_batch_of_prompts_that_end_anywhere_in_a_block(
    sdar: World, part: int
) -> None:
    for seed in range(8 * part, 8 * (part + 1)):
        policy = replace(random_block_policy(seed, sdar), cache=ExactBlocks())
        together = dlmjoint.generate(sdar.base, MIXED, policy, 13, seed=seed)
        alone = dlmjoint.generate(sdar.base, MIXED, policy, 13, seed=seed, batch_size=1)
        assert together.sequences == alone.sequences, (seed, policy)
        assert together.tally.columns == alone.tally.columns, (seed, policy)


def test_no_forward_writes_into_the_next_block_and_the_prompt_is_on_the_grid(sdar: World) -> None:
    forbid = Draw(forbid=sdar.base.end_ids)
    for schedule in (3, 8, BlockSteady((1, 3)), EntropyBound(50.0)):
        policy = Policy(schedule, draw=forbid, cache=ExactBlocks()).prepare(sdar.base)
        canvas = sdar.base.canvas(MIXED, 13)
        blocks = sdar.base.attention.blocks(canvas.positions)
        for step in decode(sdar.base, canvas, policy, Noise(0, (0, 1, 2, 3))):
            written = canvas.masked & ~step.canvas.masked
            for row in range(len(MIXED)):
                assert len(blocks[row][written[row]].unique()) <= 1
            canvas = step.canvas


def test_a_schedule_knows_how_many_forwards_a_block_has_had(sdar: World) -> None:
    policy = Policy(BlockSteady((2, 1)), draw=Draw(forbid=sdar.base.end_ids)).prepare(sdar.base)
    canvas = sdar.base.canvas([[5, 6, 7]], 9)
    steps = decode(sdar.base, canvas, policy, Noise(0, (0,)))
    # One column is left of the prompt's block; then two blocks of four.
    assert [int(step.written) for step in steps] == [1, 2, 1, 1, 2, 1, 1]


def test_a_text_that_has_ended_has_no_further_blocks(sdar: World) -> None:
    only_ends = tuple(range(1, 40))
    policy = Policy(order=LeftToRight(), draw=Draw(forbid=only_ends), cache=ExactBlocks())
    out = dlmjoint.generate(sdar.base, [[5, 6, 7]], policy, 50)
    assert out.base_forwards == 2  # the second only finds that nothing is left to write
    assert out.tally.tokens == 1
    assert out.sequences == [[5, 6, 7] + [0] * 50]


def test_a_long_text_needs_no_forward_as_long_as_itself(sdar: World) -> None:
    policy = Policy(4, draw=Draw(forbid=sdar.base.end_ids), cache=ExactBlocks())
    prepared, canvas = policy.prepare(sdar.base), sdar.base.canvas([[5] * 4], 56)
    steps = list(decode(sdar.base, canvas, prepared, Noise(0, (0,))))
    assert len(steps) == 14
    # A block's forward computes the block, and once more the one before it.
    assert [int(step.columns) for step in steps] == [8] * 14


def test_blocks_and_caches_that_are_not_the_bases_are_refused(sdar: World, dream: World) -> None:
    for policy, world, message in (
        (Policy(block_length=3), sdar, "writes in blocks of 4"),
        (Policy(cache=ExactBlocks(8)), sdar, "writes in blocks of 4"),
        (Policy(cache=FreeCache(4)), sdar, "take ExactBlocks"),
        (Policy(cache=ExactBlocks()), dream, "take FreeCache"),
    ):
        with pytest.raises(ConfigError, match=message):
            policy.prepare(world.base)
    for build, message in (
        (lambda: BlockSteady(0), "count is 0"),
        (lambda: BlockSteady(()), "count is"),
        (lambda: BlockThreshold(0), "count is 0"),
        (lambda: BlockThreshold(threshold=0.0), "threshold is 0"),
        (lambda: tokens_of(4, 5), "steps is 5"),
    ):
        with pytest.raises(ConfigError, match=message):
            build()
    assert tokens_of(8, 3) == (3, 3, 2)


def test_a_text_does_not_end_before_its_last_anchor(sdar: World) -> None:
    only_ends = Draw(forbid=tuple(range(1, 40)))
    policy = Policy(order=LeftToRight(), draw=only_ends, cache=ExactBlocks())
    out = dlmjoint.generate(sdar.base, [[5, 6, 7]], policy, 12, anchors={6: [8, 9]})
    assert out.sequences == [[5, 6, 7, *[0] * 6, 8, 9, *[0] * 4]]
    assert out.tally.tokens == 7  # up to the first behind the anchor


@pytest.mark.parametrize("part", range(2))
def test_cached_equals_uncached_on_a_trained_base_and_its_sampler(part: int) -> None:
    base = load_base(CHECKPOINTS / "tiny-sdar")
    sampler = JointSampler.from_pretrained(CHECKPOINTS / "tiny-sdar-joint")
    world = World(base, sampler, Autoregressive.beside(base, CHECKPOINTS / "tiny-judge"))
    prompts = [base.encode(text) for text in ("<|beginoftext|>", "<|beginoftext|>Tom has 3 pens.")]
    for seed in range(10 * part, 10 * (part + 1)):
        full = random_block_policy(seed, world)
        cached = replace(full, cache=ExactBlocks())
        made = [
            dlmjoint.generate(base, prompts, policy, 30, seed=seed) for policy in (full, cached)
        ]
        assert made[0].sequences == made[1].sequences, (seed, full)
        assert made[0].sampler_passes == made[1].sampler_passes, (seed, full)
        assert made[0].tally.columns > made[1].tally.columns


def test_cached_equals_uncached_where_the_canvas_is_longer_than_the_memory_is_yet() -> None:
    base = load_base(CHECKPOINTS / "tiny-sdar")
    refine = dlmjoint.Joint(JointSampler.from_pretrained(CHECKPOINTS / "tiny-sdar-joint"))
    assert base.bos_id is not None
    question = "Tom has 7 pens. Tom buys 2 more pens. How many pens does Tom have now?\n"
    prompts = [[base.bos_id, *base.encode(question)], [base.bos_id]]
    assert len(prompts[0]) + 250 > GROWTH
    found = [
        dlmjoint.generate(base, prompts, Policy(4, refine=refine, cache=cache), max_new_tokens=250)
        for cache in (ExactBlocks(), NoCache())
    ]
    assert found[0].texts == found[1].texts
    assert found[0].base_forwards == found[1].base_forwards
