"""Verified decoding: what comes out is the base's own, whatever drafts it."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import pytest
import torch
from scipy.stats import chisquare

import dlmjoint
from dlmjoint.decoding.cache import NoCache
from dlmjoint.decoding.caches.exact_blocks import ExactBlocks
from dlmjoint.decoding.caches.freecache import FreeCache
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.guide import NoGuide
from dlmjoint.decoding.guides import verified
from dlmjoint.decoding.guides.verified import Verified
from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.order import LowEntropy
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Marginals, Refine
from dlmjoint.decoding.schedule import DreamSchedule
from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.models.sdar import Sdar
from dlmjoint.models.toy import TableModel
from dlmjoint.sampling import Output
from dlmjoint.types import Canvas, Prediction
from tests.conftest import CHECKPOINTS
from tests.decoding.policies import random_block_policy, random_policy
from tests.decoding.worlds import LENGTH, PROMPTS, World, random_world

DRAWS = 4000
ANCHORS = {3: [6, 7], -2: [8]}


@dataclass(frozen=True)
class BaseItself(Refine):
    """The best drafter there is."""

    passes: ClassVar[int] = 1

    def __call__(self, base: Base, prediction: Prediction, canvas: Canvas) -> Prediction:
        return base.predict(canvas)


@dataclass(frozen=True)
class Reversed(Refine):
    """A drafter that holds likely what is unlikely."""

    passes: ClassVar[int] = 1

    def __call__(self, base: Base, prediction: Prediction, canvas: Canvas) -> Prediction:
        hidden = base.predict(canvas).hidden
        possible = hidden > -1e8
        return Prediction(torch.where(possible, -3 * hidden, hidden), prediction.fresh)


@dataclass(frozen=True)
class Guess(Refine):
    """A drafter with an opinion of its own in every state."""

    passes: ClassVar[int] = 1

    def __call__(self, base: Base, prediction: Prediction, canvas: Canvas) -> Prediction:
        old = prediction.hidden
        wave = torch.sin(torch.arange(old.numel()).view_as(old) + canvas.tokens.sum())
        return Prediction(torch.where(old > -1e8, 3 * wave, old), prediction.fresh)


@dataclass(frozen=True)
class Stubborn(Refine):
    """A drafter that says the same token whatever the noise."""

    passes: ClassVar[int] = 1

    def __call__(self, base: Base, prediction: Prediction, canvas: Canvas) -> Prediction:
        hidden = torch.full_like(prediction.hidden, -50.0)
        hidden[..., 1] = 0
        return Prediction(hidden, prediction.fresh)


@dataclass(frozen=True)
class AlwaysWrong(Refine):
    """A drafter whose most probable token is the base's least probable one."""

    passes: ClassVar[int] = 1

    def __call__(self, base: Base, prediction: Prediction, canvas: Canvas) -> Prediction:
        return Prediction(-base.predict(canvas).hidden, prediction.fresh)


DRAFTERS = [Stubborn(), Marginals(), BaseItself(), Reversed(), Guess()]
every_drafter = pytest.mark.parametrize("refine", DRAFTERS, ids=lambda r: type(r).__name__)
both_orders = pytest.mark.parametrize("order", ["exact", "drafted"])


def _counts(base: TableModel, policy: Policy, seed: int) -> Counter[tuple[int, ...]]:
    out = dlmjoint.generate(base, DRAWS, policy, max_new_tokens=3, seed=seed, batch_size=1000)
    return Counter(tuple(sequence[1:]) for sequence in out.sequences)


def _law(base: TableModel, policy: Policy, seed: int = 1) -> tuple[float, float]:
    """The p-value of the draws under the table (cells expecting under 5 pooled), and the total
    variation between them."""
    counts = _counts(base, policy, seed)
    cells = list(product(range(3), repeat=3))
    expected = [float(base.joint[cell]) * DRAWS for cell in cells]
    found = [counts[cell] for cell in cells]
    large = [place for place, count in enumerate(expected) if count >= 5]
    pooled = [DRAWS - sum(values[p] for p in large) for values in (found, expected)]
    p_value = chisquare(
        [found[p] for p in large] + pooled[:1], [expected[p] for p in large] + pooled[1:]
    ).pvalue
    apart = sum(abs(f - e) for f, e in zip(found, expected, strict=True)) / 2 / DRAWS
    return p_value, apart


@both_orders
@every_drafter
def test_the_law_of_the_strings_is_the_exact_joint_whatever_drafts_them(
    table: TableModel, refine: Refine, order: str
) -> None:
    p_value, apart = _law(table, Policy(3, refine=refine, guide=Verified(order)))
    assert p_value > 1e-3
    assert apart < 0.04


def _without_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified.DraftedOrder, "owes", False)


def _with_the_noise_of_another_column(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Turn._drawn

    def drawn(self: Turn, cells: Cells):
        if isinstance(self.forward, int):
            return written(self, cells)
        other = torch.zeros_like(cells.columns) + cells.start
        logits = self.base.unembed(self.prediction.hidden[cells.rows[:, None], cells.columns])
        return self.draw.write(
            self.draw.shape(logits), cells.rows[:, None], other - cells.start, self.noise
        )

    monkeypatch.setattr(Turn, "_drawn", drawn)


def _with_the_drafters_own_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = verified.Verifying._ask

    def asked(self, turn, states, ahead):
        found, rows, branches = ask(self, turn, states, ahead)
        owner = rows // states.count
        found.prediction = Prediction(turn.told.hidden[owner], found.prediction.fresh)
        return found, rows, branches

    monkeypatch.setattr(verified.Verifying, "_ask", asked)


@pytest.mark.parametrize(
    ("plant", "refine"),
    [
        (_without_correction, Stubborn()),
        (_with_the_noise_of_another_column, Marginals()),
        (_with_the_drafters_own_logits, Marginals()),
    ],
)
def test_a_planted_fault_is_seen_in_the_law_of_the_strings(
    table: TableModel,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    refine: Refine,
) -> None:
    plant(monkeypatch)
    p_value, _ = _law(table, Policy(3, refine=refine, guide=Verified("drafted")))
    assert p_value < 1e-6


@both_orders
def test_a_drafter_that_is_the_base_itself_has_everything_accepted(
    table: TableModel, order: str
) -> None:
    out = dlmjoint.generate(table, 20, Policy(3, refine=BaseItself(), guide=Verified(order)), 3)
    assert out.base_forwards == 2 * 20  # about the blank canvas, and about both states of a round
    assert out.tally.canvases == 3 * 20


@both_orders
def test_a_drafter_that_is_always_wrong_costs_a_forward_per_token(world: World, order: str) -> None:
    policy = Policy(4, refine=AlwaysWrong(), draw=Draw(0), guide=Verified(order))
    out = dlmjoint.generate(world.base, PROMPTS, policy, LENGTH)
    assert out.base_forwards == LENGTH * len(PROMPTS)


def _same(one: Output, other: Output) -> bool:
    pairs = list(zip(one.trajectories, other.trajectories, strict=True))
    for a, b in pairs:
        if not torch.equal(a.response, b.response) or not torch.equal(a.order, b.order):
            return False
        if not torch.allclose(a.log_probs, b.log_probs, atol=1e-4):
            return False
    return len(pairs) > 0


def _drawn_differently(policy: Policy, seed: int) -> Policy:
    chance = random.Random(seed)
    draws = [policy.draw, Draw(), Draw(0.7), Draw(1.2, top_p=0.8)]
    return replace(policy, draw=chance.choice(draws), guide=NoGuide())


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(30, 200), marks=pytest.mark.slow)])
def test_random_policies_write_exactly_what_one_token_per_forward_writes(
    world: World, seeds: range
) -> None:
    wrong = []
    for seed in seeds:
        drafted = _drawn_differently(random_policy(seed, world), seed)
        exact = replace(drafted, commits_per_forward=1)
        anchors = ANCHORS if seed % 4 == 0 else None
        found = [
            dlmjoint.generate(world.base, PROMPTS, policy, LENGTH, seed=2, anchors=anchors)
            for policy in (exact, replace(drafted, guide=Verified()))
        ]
        if not _same(*found):
            wrong.append(seed)
    assert not wrong


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 100), marks=pytest.mark.slow)])
def test_bases_that_write_block_after_block_write_exactly_the_same_verified(seeds: range) -> None:
    sdar = random_world(Sdar)
    wrong = []
    for seed in seeds:
        drafted = _drawn_differently(random_block_policy(seed, sdar), seed)
        drafted = replace(drafted, cache=ExactBlocks() if seed % 2 else NoCache())
        exact = replace(drafted, commits_per_forward=1)
        found = [
            dlmjoint.generate(sdar.base, PROMPTS, policy, LENGTH, seed=2)
            for policy in (exact, replace(drafted, guide=Verified()))
        ]
        if not _same(*found):
            wrong.append(seed)
    assert not wrong


@both_orders
@pytest.mark.parametrize("cache", [NoCache(), FreeCache(4)], ids=["full", "FreeCache"])
def test_a_row_alone_is_verified_as_in_a_batch(world: World, order: str, cache) -> None:
    policy = Policy(5, refine=Joint(world.sampler), cache=cache, guide=Verified(order))
    batch = dlmjoint.generate(world.base, PROMPTS, policy, LENGTH, seed=3)
    for row, prompt in enumerate(PROMPTS):
        alone = dlmjoint.generate(world.base, [prompt], policy, LENGTH, seed=3, first_id=row)
        assert _same(alone, replace(batch, trajectories=batch.trajectories[row : row + 1]))


def test_a_drafted_order_is_replayed_by_the_base_token_for_token(world: World) -> None:
    """Each token is what the base picks in that column of that state with the cell's own noise."""
    policy = Policy(6, refine=Joint(world.sampler), guide=Verified("drafted"))
    out = dlmjoint.generate(world.base, 3, policy, LENGTH, seed=4)
    for trajectory in out.trajectories:
        replay = Policy(order=_Given(trajectory.order.tolist()))
        again = dlmjoint.generate(
            world.base, 1, replay, LENGTH, seed=4, first_id=trajectory.example_id
        )
        assert again.trajectories[0].response.tolist() == trajectory.response.tolist()
        torch.testing.assert_close(
            again.trajectories[0].log_probs, trajectory.log_probs, atol=1e-4, rtol=1e-4
        )


@dataclass(frozen=True)
class _Given(LowEntropy):
    """A known order of response columns."""

    columns: list[int]

    def rank(self, cells: Cells, noise) -> torch.Tensor:
        rank = {column: -place for place, column in enumerate(self.columns)}
        return torch.tensor([[float(rank[c]) for c in row] for row in cells.places.tolist()])


def test_every_canvas_and_column_of_a_round_is_counted(world: World) -> None:
    plain = dlmjoint.generate(world.base, 2, Policy(1), LENGTH)
    assert plain.tally.canvases == plain.base_forwards
    out = dlmjoint.generate(
        world.base, 2, Policy(4, refine=Joint(world.sampler), guide=Verified()), LENGTH
    )
    assert out.base_forwards < out.tally.canvases
    assert out.tally.columns == out.tally.canvases * (1 + LENGTH)
    assert out.tally.tokens == 2 * LENGTH


def test_forwards_that_write_nothing_change_nothing(world: World) -> None:
    schedule = Policy(DreamSchedule(LENGTH), guide=Verified(), cache=FreeCache(4))
    exact = replace(schedule, commits_per_forward=1, guide=NoGuide())
    assert _same(
        dlmjoint.generate(world.base, PROMPTS, schedule, LENGTH),
        dlmjoint.generate(world.base, PROMPTS, exact, LENGTH),
    )


def test_an_order_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="order is 'fast', expected one of exact, drafted"):
        Verified("fast")


@pytest.mark.slow
def test_five_hundred_samples_of_the_tiny_base_are_its_exact_ones_id_for_id() -> None:
    base = load_base(CHECKPOINTS / "tiny-dream")
    sampler = JointSampler.from_pretrained(CHECKPOINTS / "tiny-joint")
    exact = dlmjoint.generate(base, 500, Policy(), 55, seed=1)
    out = dlmjoint.generate(
        base, 500, Policy(4, refine=Joint(sampler), guide=Verified()), 55, seed=1
    )
    assert _same(exact, out)


def test_a_long_prompt_does_not_matter_where_a_row_has_no_next_draft(world: World) -> None:
    """Rows of different lengths have their last rounds with fewer drafts than there is room for."""
    prompts = [[5] * 30, [6, 7] * 15]
    policy = Policy(5, refine=Joint(world.sampler), guide=Verified("drafted"))
    out = dlmjoint.generate(world.base, prompts, policy, LENGTH)
    assert out.tally.tokens == 2 * LENGTH
