"""Prophet, other early rules, and anchors."""

from dataclasses import dataclass, replace

import pytest
import torch

import dlmjoint
from dlmjoint.decoding.caches.fastdllm import DualCache
from dlmjoint.decoding.caches.freecache import FreeCache
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.early import Coherent
from dlmjoint.decoding.early_rules.end_of_text import EndOfText
from dlmjoint.decoding.early_rules.prophet import (
    AfterAnchor,
    Columns,
    Linear,
    Prophet,
    Published,
    Staged,
)
from dlmjoint.decoding.guides.accept import (
    TopK,
)
from dlmjoint.decoding.guides.ar_guide import LoadedGuide
from dlmjoint.decoding.order import LeftToRight
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Marginals
from dlmjoint.decoding.turn import Turn
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from dlmjoint.types import Canvas
from tests.decoding.worlds import GREEDY, LENGTH, PROMPTS, World, sequences


def test_infinite_thresholds_change_nothing(world: World) -> None:
    never = Prophet(Staged(torch.inf, torch.inf, torch.inf))
    for refine in (Marginals(), Joint(world.sampler)):
        plain = Policy(3, refine=refine)
        assert sequences(world.base, replace(plain, early=never)) == sequences(world.base, plain)


def test_zero_thresholds_need_one_forward(world: World) -> None:
    at_once = Policy(early=Prophet(Staged(0.0, 0.0, 0.0)), draw=GREEDY)
    out = dlmjoint.generate(world.base, PROMPTS, at_once, LENGTH)
    assert out.base_forwards == len(PROMPTS)
    everything = Policy(LENGTH, draw=GREEDY)
    assert out.sequences == sequences(world.base, everything)


def test_progress_is_forwards_done_over_forwards_planned_for_a_constant_k(dream: World) -> None:
    seen = []

    @dataclass(frozen=True)
    class Listening(Prophet):
        def finish(self, turn: Turn) -> None:
            seen.append(self.progress(turn).tolist())

    dlmjoint.generate(dream.base, [[5]], Policy(3, early=Listening()), 12)
    assert seen == [[0.0], [0.25], [0.5], [0.75]]


def test_a_later_stage_needs_a_smaller_gap() -> None:
    progress = torch.tensor([0.0, 0.32, 0.34, 0.66, 0.68, 1.0], dtype=torch.float64)
    assert Staged().at(progress).tolist() == [7.5, 7.5, 5.0, 5.0, 2.5, 2.5]
    assert Published("gsm8k").at(progress).tolist() == [8.0, 8.0, 5.0, 5.0, 3.5, 3.5]
    assert Linear().at(progress)[-1] == 3.5


def test_rows_finish_apart_from_each_other(world: World) -> None:
    """A threshold between the rows' gaps ends one of them and leaves the others."""
    base = world.base
    gaps = []
    with torch.no_grad():
        for prompt in PROMPTS:
            canvas = base.canvas([prompt], LENGTH)
            logits = base.unembed(base.predict(canvas).hidden[0, canvas.response]).topk(2).values
            gaps.append(float((logits[:, 0] - logits[:, 1]).mean()))
    between = sum(sorted(gaps)[1:]) / 2
    policy = Policy(early=Prophet(Staged(between, torch.inf, torch.inf)), draw=GREEDY)
    policy = policy.prepare(base)
    canvas = base.canvas(PROMPTS, LENGTH)
    first = next(decode(base, canvas, policy, Noise(0, (0, 1, 2))))
    assert (~first.canvas.masked.any(-1)).tolist() == [gap >= between for gap in gaps]


def test_a_coherent_fill_of_a_sampler_that_does_nothing_is_the_one_shot_fill(dream: World) -> None:
    silent = JointSampler.from_base(dream.base, gain=0.0).eval()
    once = Prophet(Staged(0.3, 0.2, 0.1))
    policy = Policy(2, refine=Joint(silent), early=once, draw=GREEDY)
    coherent = replace(policy, early=replace(once, fill=Coherent()))
    assert sequences(dream.base, coherent) == sequences(dream.base, policy)


def test_a_coherent_fill_spends_passes_and_writes_other_text(dream: World) -> None:
    policy = Policy(
        2,
        refine=Joint(dream.sampler),
        early=Prophet(Staged(0.0, 0.0, 0.0), Columns(8, 2), Coherent()),
        draw=GREEDY,
    )
    out = dlmjoint.generate(dream.base, PROMPTS, policy, LENGTH)
    assert out.sampler_passes == len(PROMPTS) * (LENGTH - 2)
    once = replace(policy, early=Prophet(Staged(0.0, 0.0, 0.0), Columns(8, 2)))
    shot = dlmjoint.generate(dream.base, PROMPTS, once, LENGTH)
    assert [s[-4:-2] for s in out.sequences] == [s[-4:-2] for s in shot.sequences]
    assert out.sequences != shot.sequences


def test_a_coherent_fill_leaves_the_rows_that_go_on_as_they_were(dream: World) -> None:
    """Filling one row by passes must not change what is known about the others."""
    early = Prophet(Staged(0.55, 0.5, 0.45), fill=Coherent(tokens_per_pass=2))
    policy = Policy(2, refine=Joint(dream.sampler), early=early, draw=GREEDY)
    together = sequences(dream.base, policy)
    for row, prompt in enumerate(PROMPTS):
        alone = dlmjoint.generate(dream.base, [prompt], policy, LENGTH, seed=2, first_id=row)
        assert alone.sequences[0] == together[row]


def test_a_row_whose_text_has_ended_is_filled_with_ends(dream: World) -> None:
    base = Dream.random()
    with torch.no_grad():
        base.network.lm_head.weight[0] = 4 * base.network.lm_head.weight[7]
    policy = Policy(order=LeftToRight(), draw=GREEDY)
    plain = dlmjoint.generate(base, PROMPTS, policy, LENGTH)
    early = dlmjoint.generate(base, PROMPTS, replace(policy, early=EndOfText()), LENGTH)
    ended = 0
    for sequence, full, prompt in zip(early.sequences, plain.sequences, PROMPTS, strict=True):
        response, expected = sequence[len(prompt) :], full[len(prompt) :]
        if 0 in expected:
            ended += 1
            end = expected.index(0)
            assert response[: end + 1] == expected[: end + 1]
            assert set(response[end:]) == {0}
        else:
            assert response == expected
    assert ended
    assert early.base_forwards < plain.base_forwards


def test_a_chance_end_is_no_end_where_several_are_asked_for(dream: World) -> None:
    canvas = dream.base.canvas([[5]], 6)
    canvas.tokens[0, 1:4] = torch.tensor([7, 0, 0])
    for consecutive, ended in ((1, True), (2, True), (3, False)):
        turn = _turn(dream.base, canvas)
        EndOfText(consecutive, (0,)).finish(turn)
        assert (turn.canvas.tokens[0, 4:] == 0).all() == ended


def _turn(base: TransformerBase, canvas: Canvas) -> Turn:
    policy = Policy().prepare(base)
    with torch.no_grad():
        prediction = base.predict(canvas)
    return Turn(
        base, policy.order, policy.draw, policy.refine, None, Noise(0, (0,)), 0, canvas, prediction
    )


ANCHORED = {
    "exact": lambda w: Policy(),
    "joint": lambda w: Policy(4, refine=Joint(w.sampler)),
    "prophet": lambda w: Policy(2, early=Prophet(Staged(0.5, 0.4, 0.3), AfterAnchor(2))),
    "coherent": lambda w: Policy(
        2, refine=Joint(w.sampler), early=Prophet(Staged(0.5, 0.4, 0.3), AfterAnchor(2), Coherent())
    ),
    "blocks": lambda w: Policy(3, block_length=4),
    "freecache": lambda w: Policy(2, cache=FreeCache(4)),
    "dual": lambda w: Policy(2, cache=DualCache(4)),
    "guided": lambda w: Policy(8, order=LeftToRight(), guide=LoadedGuide(w.guide, TopK(10))),
}


@pytest.mark.parametrize("name", ANCHORED)
def test_anchors_survive_and_are_never_written(name: str, world: World) -> None:
    policy = ANCHORED[name](world).prepare(world.base)
    canvas = world.base.canvas(PROMPTS, LENGTH).anchor({4: [11, 12], -3: [13]})
    steps = list(decode(world.base, canvas, policy, Noise(0, (0, 1, 2))))
    response = steps[-1].canvas.tokens[:, canvas.response]
    assert (response[:, [4, 5, 9]] == torch.tensor([11, 12, 13])).all()
    assert (response != world.base.mask_id).all()
    written = {
        (row, column)
        for step in steps
        for commit in step.commits
        for row, entries in enumerate(commit.entries())
        for column, _, _ in entries
    }
    assert len(written) == 3 * (LENGTH - 3)
    for trajectory in dlmjoint.trajectories.record.record(canvas, steps, (0, 1, 2)):
        assert len(trajectory.order) == LENGTH - 3
        assert not set(trajectory.order.tolist()) & {4, 5, 9}
        start = trajectory.state(0, world.base.mask_id)
        assert torch.equal(start, canvas.tokens[0, canvas.response])


@pytest.mark.parametrize("name", ANCHORED)
def test_every_row_may_have_anchors_of_its_own(name: str, world: World) -> None:
    """Rows with more and with fewer masks are what each is alone."""
    policy = ANCHORED[name](world).prepare(world.base)
    own = [{4: [11, 12], -3: [13]}, {-4: [13]}, {1: [14, 11, 12], 5: [12]}]
    together = world.base.canvas(PROMPTS, LENGTH, own)
    *_, last = decode(world.base, together, policy, Noise(0, (0, 1, 2)))
    for row, anchors in enumerate(own):
        alone = world.base.canvas([PROMPTS[row]], LENGTH, anchors)
        *_, single = decode(world.base, alone, policy, Noise(0, (row,)))
        response = last.canvas.tokens[row, last.canvas.response]
        assert torch.equal(response, single.canvas.tokens[0, single.canvas.response])
        for column, ids in anchors.items():
            assert response[column % LENGTH :][: len(ids)].tolist() == ids


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({10: [1, 2, 3]}, "does not fit"),
        ({0: [1, 2], 1: [3]}, "overlaps"),
        ({0: list(range(1, 13))}, "no column to write"),
        ([{0: [1]}, {0: [2]}], "anchors of 2 rows on a canvas of 1"),
    ],
)
def test_anchors_that_cannot_be_are_refused(dream: World, columns, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dream.base.canvas([[5]], LENGTH).anchor(columns)
