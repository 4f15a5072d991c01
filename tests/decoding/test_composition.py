"""Every choice with every other: what must hold whatever the combination."""

from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations, product

import pytest
import torch

import dlmjoint
from dlmjoint.decoding.cache import NoCache
from dlmjoint.decoding.caches.fastdllm import DualCache, PrefixCache
from dlmjoint.decoding.caches.freecache import FreeCache
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.early import Coherent, FirstOf, Never
from dlmjoint.decoding.early_rules.end_of_text import EndOfText
from dlmjoint.decoding.early_rules.prophet import (
    AfterAnchor,
    Columns,
    Prophet,
    Published,
    Staged,
)
from dlmjoint.decoding.forward import ClassifierFree
from dlmjoint.decoding.guide import Guide, NoGuide
from dlmjoint.decoding.guides.accept import (
    Agreement,
    TopK,
)
from dlmjoint.decoding.guides.ar_guide import ARGuide, LoadedGuide
from dlmjoint.decoding.guides.verified import Verified
from dlmjoint.decoding.looks.tiles import drawn, numbers
from dlmjoint.decoding.order import LeftToRight
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Marginals
from dlmjoint.decoding.schedules.budget import Budget
from dlmjoint.decoding.schedules.confidence import ConfidenceFactor, ConfidenceThreshold
from dlmjoint.decoding.schedules.entropy_bound import EntropyBound
from dlmjoint.errors import ConfigError
from dlmjoint.random import Noise
from tests.decoding.worlds import GREEDY, LENGTH, PROMPTS, World

REFINES = {
    "marginals": lambda w: {"commits_per_forward": 4},
    "joint 2": lambda w: {"commits_per_forward": 2, "refine": Joint(w.sampler)},
    "joint 4": lambda w: {"commits_per_forward": 4, "refine": Joint(w.sampler)},
    "joint 8": lambda w: {"commits_per_forward": 8, "refine": Joint(w.sampler)},
    "adaptive": lambda w: {
        "commits_per_forward": Budget(1.0, rate=(1.0,), cap=5),
        "refine": Joint(w.sampler),
    },
}
CACHES = {"no cache": NoCache(), "freecache": FreeCache(4), "dual": DualCache(4)}
EARLY = {"never": Never(), "prophet": Prophet(Staged(0.9, 0.6, 0.4))}
GUIDES = {
    "no guide": lambda w: {},
    "guide": lambda w: {"order": LeftToRight(), "guide": LoadedGuide(w.guide, TopK(8))},
}
GRID = list(product(REFINES, CACHES, EARLY, GUIDES))


def _combined(world: World, refine: str, cache: str, early: str, guide: str) -> Policy:
    return Policy(
        **REFINES[refine](world), cache=CACHES[cache], early=EARLY[early], **GUIDES[guide](world)
    )


@pytest.mark.parametrize("parts", GRID, ids=", ".join)
def test_every_combination_fills_every_row_as_if_it_were_alone(
    world: World, parts: tuple[str, str, str, str]
) -> None:
    policy = _combined(world, *parts)
    batch = dlmjoint.generate(world.base, PROMPTS, policy, LENGTH, seed=4)
    for row, prompt in enumerate(PROMPTS):
        response = batch.sequences[row][len(prompt) :]
        assert len(response) == LENGTH
        assert not set(response) & set(world.base.forbidden_ids)
        alone = dlmjoint.generate(world.base, [prompt], policy, LENGTH, seed=4, first_id=row)
        assert alone.sequences[0] == batch.sequences[row]
        assert torch.equal(alone.trajectories[0].order, batch.trajectories[row].order)


SINGLES: dict[str, dict[str, Callable[[World], object]]] = {
    "coherent prophet": {
        "early": lambda w: Prophet(Staged(0.9, 0.6, 0.4), fill=Coherent()),
        "refine": lambda w: Joint(w.sampler),
    },
    "end of text": {"early": lambda w: FirstOf((EndOfText(), Prophet(Staged(2, 1, 0.5))))},
    "freecache as published": {"cache": lambda w: FreeCache(4, delayed=False)},
    "refreshed freecache": {"cache": lambda w: FreeCache(4, refresh=3)},
    "prefix cache": {"cache": lambda w: PrefixCache(4)},
    "dual cache": {"cache": lambda w: DualCache(4)},
    "blocks": {"block_length": lambda w: 4},
    "threshold": {"commits_per_forward": lambda w: ConfidenceThreshold(0.2)},
    "factor": {"commits_per_forward": lambda w: ConfidenceFactor(1.5)},
    "entropy bound": {"commits_per_forward": lambda w: EntropyBound(4.0)},
    "budget": {"commits_per_forward": lambda w: Budget(2.0, rate=(1.0,))},
    "guide": {"guide": lambda w: LoadedGuide(w.guide, TopK(8)), "order": lambda w: LeftToRight()},
    "apd": {"guide": lambda w: LoadedGuide(w.guide, Agreement()), "order": lambda w: LeftToRight()},
    "classifier-free": {"forward": lambda w: ClassifierFree(0.5)},
    "greedy": {"draw": lambda w: GREEDY},
    "sampler": {"refine": lambda w: Joint(w.sampler)},
}
REFUSED = [("coherent prophet", "apd"), ("apd", "sampler")]
PAIRS = [
    pair
    for pair in combinations(SINGLES, 2)
    if not SINGLES[pair[0]].keys() & SINGLES[pair[1]].keys() and pair not in REFUSED
]


def _pair(world: World, pair: tuple[str, str]) -> Policy:
    parts = SINGLES[pair[0]] | SINGLES[pair[1]]
    return Policy(**({"commits_per_forward": 3} | {k: make(world) for k, make in parts.items()}))


@pytest.mark.parametrize("pair", PAIRS, ids=" + ".join)
def test_a_row_alone_is_decoded_as_in_a_left_padded_batch_under_every_pair(
    world: World, pair: tuple[str, str]
) -> None:
    policy = _pair(world, pair)
    batch = dlmjoint.generate(world.base, PROMPTS, policy, LENGTH, seed=5)
    for row, prompt in enumerate(PROMPTS):
        alone = dlmjoint.generate(world.base, [prompt], policy, LENGTH, seed=5, first_id=row)
        assert alone.sequences[0] == batch.sequences[row]


@pytest.mark.parametrize("pair", REFUSED, ids=" + ".join)
def test_agreement_with_the_marginals_is_refused_for_a_samplers_drafts(
    dream: World, pair: tuple[str, str]
) -> None:
    with pytest.raises(ConfigError, match="base's marginals"):
        _pair(dream, pair)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Policy(early=Prophet(fill=Coherent())), "give the policy a sampler"),
        (lambda: Policy(guide=ARGuide("anything")), "take LeftToRight"),
        (lambda: Policy(block_length=8, cache=FreeCache(4)), "in blocks of 4"),
        (lambda: FreeCache(0), "block_length is 0"),
        (lambda: FreeCache(refresh=0), "refresh is 0"),
        (lambda: Published("chess"), "no thresholds for 'chess'"),
        (lambda: Columns(-1, 2), "is no region"),
        (lambda: Staged(first=0.8), "stages change at"),
        (lambda: Budget(-1.0), "nats is -1"),
        (lambda: Budget(rate=()), "expected prices"),
        (lambda: ConfidenceThreshold(0), "threshold is 0"),
        (lambda: TopK(0), "k is 0"),
        (lambda: EndOfText(0), "consecutive is 0"),
        (lambda: ClassifierFree(-1), "scale is -1"),
    ],
)
def test_choices_that_cannot_work_together_are_refused_at_construction(build, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_an_answer_region_off_the_canvas_is_refused(dream: World) -> None:
    for region, message in (
        (Columns(10, 5), "ends at response column 15"),
        (AfterAnchor(), "needs an anchor"),
    ):
        with pytest.raises(ConfigError, match=message):
            dlmjoint.generate(dream.base, [[5]], Policy(early=Prophet(region=region)), LENGTH)


def test_a_row_with_nothing_to_write_beside_others_is_no_matter_under_a_long_prompt(
    world: World,
) -> None:
    """Rows with different numbers of masks: the shorter one has nothing to draw in the last passes."""
    prompts = [[5] * (LENGTH + 9), [6] * 4]
    anchors = [{0: [5, 6, 7, 8]}, {}]
    for refine in (Marginals(), Joint(world.sampler)):
        policy = Policy(5, refine=refine).prepare(world.base)
        canvas = world.base.canvas(prompts, LENGTH, anchors)
        (*_, last) = decode(world.base, canvas, policy, Noise(0, (0, 1)))
        assert not last.canvas.masked.any()


@pytest.mark.parametrize("guide", [NoGuide(), Verified()], ids=["none", "verified"])
def test_finished_rows_that_stay_to_keep_a_shape_change_nothing_and_cost_nothing(
    world: World, guide: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where forwards are compiled: of four rows one is finished early, and stays. Looks and draws are
    made in tiles, but not compiled: the checks of shapes cannot be."""
    monkeypatch.setattr("dlmjoint.decoding.looks.look.captured_numbers", lambda device: numbers)
    monkeypatch.setattr("dlmjoint.decoding.draw.captured_draw", lambda device: drawn)
    prompts, anchors = [*PROMPTS, [5, 6]], [{0: [5, 6, 7, 8, 9, 10]}, {}, {}, {}]
    policy = Policy(2, guide=guide)
    found = []
    for captured in (False, True):
        monkeypatch.setattr(world.base, "captured", captured)
        out = dlmjoint.generate(world.base, prompts, policy, LENGTH, anchors=anchors)
        counts = asdict(out.tally)
        del counts["seconds"]
        found.append((out.sequences, counts))
    assert found[0] == found[1]
