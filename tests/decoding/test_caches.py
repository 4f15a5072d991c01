"""FreeCache and Fast-dLLM's caches."""

from dataclasses import dataclass, replace

import pytest
import torch

import dlmjoint
from dlmjoint.decoding.cache import NoCache
from dlmjoint.decoding.caches.fastdllm import DualCache, PrefixCache
from dlmjoint.decoding.caches.freecache import FreeCache
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Marginals
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.random import Noise
from dlmjoint.types import Canvas
from tests.decoding.worlds import GREEDY, LENGTH, World, sequences


@pytest.mark.parametrize("delayed", [True, False])
def test_a_cache_that_recomputes_everything_equals_no_cache(world: World, delayed: bool) -> None:
    for refine in (Marginals(), Joint(world.sampler)):
        plain = Policy(3, refine=refine, block_length=4)
        always = replace(plain, cache=FreeCache(4, delayed=delayed, refresh=1))
        assert sequences(world.base, always) == sequences(world.base, plain)


def test_a_cache_whose_block_is_the_response_computes_all_of_it(world: World) -> None:
    plain = Policy(2, draw=GREEDY)
    out = dlmjoint.generate(world.base, [[5]], replace(plain, cache=FreeCache(LENGTH)), LENGTH)
    whole = dlmjoint.generate(world.base, [[5]], plain, LENGTH)
    assert whole.tally.columns - out.tally.columns == LENGTH // 2 - 1  # the prompt's one column


def test_the_delayed_cache_never_reuses_a_column_computed_as_a_mask(world: World) -> None:
    reused = []

    @dataclass(frozen=True)
    class Watched(FreeCache):
        def renew(self, canvas: Canvas, memory: CanvasMemory | None, forward: int) -> torch.Tensor:
            cells = super().renew(canvas, memory, forward)
            if memory is not None and memory.clean is not None:
                unfinished = canvas.masked.any(-1, keepdim=True)
                reused.append(int((~cells & ~memory.clean & unfinished).sum()))
            return cells

    for commits in (1, 3):
        for delayed in (True, False):
            reused.clear()
            policy = Policy(commits, refine=Joint(world.sampler), cache=Watched(4, delayed))
            sequences(world.base, policy)
            assert bool(sum(reused)) != delayed


def test_caches_compute_fewer_columns_in_the_published_order(dream: World) -> None:
    columns = {}
    for cache in (
        NoCache(),
        PrefixCache(4),
        FreeCache(4),
        FreeCache(4, delayed=False),
        DualCache(4),
    ):
        policy = Policy(block_length=4, cache=cache, draw=GREEDY)
        out = dlmjoint.generate(dream.base, [[5, 6]], policy, LENGTH)
        columns[repr(cache)] = out.tally.columns
    full, prefix, delayed, free, dual = columns.values()
    assert dual < free < delayed < prefix < full


def test_a_block_of_fast_dllm_begins_with_a_full_forward(dream: World) -> None:
    for cache, within in ((PrefixCache(4), (8, 4)), (DualCache(4), (4, 4))):
        policy = Policy(2, cache=cache, draw=GREEDY).prepare(dream.base)
        canvas = dream.base.canvas([[5]], 8)
        steps = list(decode(dream.base, canvas, policy, Noise(0, (0,))))
        assert [int(s.columns) for s in steps] == [9, within[0], 9, within[1]]
