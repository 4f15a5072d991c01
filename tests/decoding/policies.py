"""Random policies: every kind of choice, drawn together as far as they may be combined."""

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace

import dlmjoint
from dlmjoint.decoding.cache import NoCache
from dlmjoint.decoding.caches.fastdllm import DualCache, PrefixCache
from dlmjoint.decoding.caches.freecache import FreeCache
from dlmjoint.decoding.early import Coherent, FirstOf, Never
from dlmjoint.decoding.early_rules.end_of_text import EndOfText
from dlmjoint.decoding.early_rules.prophet import Columns, Linear, Prophet, Staged
from dlmjoint.decoding.forward import ClassifierFree, Conditional
from dlmjoint.decoding.guides.accept import (
    Aggressive,
    MinimumProbability,
    Stochastic,
    TopK,
    TopKRelative,
)
from dlmjoint.decoding.guides.ar_guide import LoadedGuide
from dlmjoint.decoding.order import (
    EndsLast,
    HighProbability,
    LeftToRight,
    LowEntropy,
    Margin,
    Random,
)
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.decoding.schedule import DreamSchedule, LladaSchedule
from dlmjoint.decoding.schedules.budget import Budget
from dlmjoint.decoding.schedules.confidence import ConfidenceFactor, ConfidenceThreshold
from dlmjoint.decoding.schedules.entropy_bound import EntropyBound
from dlmjoint.decoding.schedules.sdar import BlockSteady, BlockThreshold
from dlmjoint.errors import ConfigError
from tests.decoding.worlds import GREEDY, LENGTH, PROMPTS, World

ORDERS = [
    LowEntropy(),
    HighProbability(),
    Margin(),
    Random(),
    LeftToRight(),
    EndsLast(LowEntropy()),
    EndsLast(),
]
CACHES = [
    *[NoCache()] * 4,
    FreeCache(4),
    FreeCache(3, delayed=False),
    FreeCache(5, refresh=3),
    PrefixCache(4),
    DualCache(6),
]
SCHEDULES = [
    *(1, 2, 3, 4, 5, 8, 12),
    DreamSchedule(5),
    DreamSchedule(6, blocks=3),
    LladaSchedule(6, blocks=3),
    LladaSchedule(4),
    ConfidenceThreshold(0.2),
    ConfidenceThreshold(0.5, cap=3),
    ConfidenceFactor(1.5),
    EntropyBound(2.0),
    EntropyBound(0.3, cap=4),
    Budget(1.0, rate=(1.0,), cap=5),
    Budget(2.0, rate=(0.3, 1.0), cap=None),
]
EARLY = [
    *[Never()] * 3,
    Prophet(Staged(0.9, 0.6, 0.4)),
    Prophet(Linear(1.0, 0.8), Columns(2, 4)),
    Prophet(Staged(2.0, 1.0, 0.5), fill=Coherent()),
    Prophet(Staged(1.0, 0.7, 0.3), Columns(0, 3), Coherent(2)),
    Prophet(Staged(0.9, 0.7, 0.4), planned=4),
    EndOfText(),
    FirstOf((EndOfText(), Prophet(Staged(2, 1, 0.5)))),
]
ACCEPTS = [TopK(8), TopK(2), TopKRelative(), MinimumProbability(0.01), Aggressive(), Stochastic()]


BLOCK_SCHEDULES = [
    BlockSteady(2),
    BlockSteady((2, 1)),
    BlockThreshold(1, 0.2),
    BlockThreshold(2, 0.5),
]


def random_block_policy(seed: int, world: World) -> Policy:
    """A greedy policy without a cache, for a base that writes block after block."""
    policy = replace(random_policy(seed, world), cache=NoCache(), block_length=None)
    chance = random.Random(seed)
    if chance.random() < 0.3:
        policy = replace(policy, commits_per_forward=chance.choice(BLOCK_SCHEDULES))
    return policy


def random_policy(seed: int, world: World) -> Policy:
    """A greedy policy, the same for a seed whatever the world."""
    while True:
        chance = random.Random(seed)
        parts: dict[str, object] = {
            "commits_per_forward": chance.choice(SCHEDULES),
            "order": chance.choice(ORDERS),
            "draw": GREEDY,
            "cache": chance.choice(CACHES),
            "early": chance.choice(EARLY),
            "forward": chance.choice([*[Conditional()] * 4, ClassifierFree(0.5)]),
            "block_length": chance.choice([None, None, 3, 4, LENGTH]),
        }
        extras: list[Callable[[], dict[str, object]]] = [
            dict,
            lambda: {"refine": Joint(world.sampler)},
            lambda: {"refine": Joint(world.sampler)},
            lambda: {
                "order": LeftToRight(),
                "guide": LoadedGuide(world.guide, chance.choice(ACCEPTS)),  # noqa: B023 called at once
            },
        ]
        parts |= chance.choice(extras)()
        try:
            return Policy(**parts)
        except ConfigError:  # such as blocks that are not the cache's
            seed += 1_000_003


def written(world: World, seed: int) -> str:
    """A digest of the tokens that a random policy writes, and of their order."""
    policy = random_policy(seed, world)
    out = dlmjoint.generate(world.base, PROMPTS, policy, max_new_tokens=LENGTH, seed=2)
    orders = [trajectory.order.tolist() for trajectory in out.trajectories]
    return hashlib.sha256(json.dumps([out.sequences, orders]).encode()).hexdigest()[:8]
