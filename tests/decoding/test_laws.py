"""What any decoding must satisfy, whatever its settings."""

from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import pytest
import torch
from scipy.stats import chisquare

import dlmjoint
from dlmjoint.decoding.cache import CachePolicy
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw, forbid
from dlmjoint.decoding.early import EarlyCommit
from dlmjoint.decoding.order import HighProbability, LeftToRight, LowEntropy, Margin, Random
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Marginals, Refine, Trained
from dlmjoint.decoding.schedule import DreamSchedule, LladaSchedule
from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError, MismatchError
from dlmjoint.models.base import Base
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.models.toy import TableModel
from dlmjoint.random import Noise
from dlmjoint.types import Canvas, Prediction

ORDERS = [LowEntropy(), HighProbability(), Margin(), Random(), LeftToRight()]
DRAWS = 4000


@dataclass(frozen=True)
class AskAgain(Refine):
    """The ideal sampler: the base itself, at the cost of a forward."""

    passes: ClassVar[int] = 1

    def __call__(self, base: Base, prediction: Prediction, canvas: Canvas) -> Prediction:
        return base.predict(canvas)


@dataclass(frozen=True)
class OddRows(EarlyCommit):
    """Finishes every second row at once."""

    def ready(self, turn: Turn) -> torch.Tensor:
        return torch.tensor([example % 2 == 1 for example in turn.noise.example_ids])

    def finish(self, turn: Turn) -> None:
        self.fill(turn, self.ready(turn), torch.zeros_like(turn.canvas.attends))


@dataclass(frozen=True)
class FromFirstMask(CachePolicy):
    """Recompute from a row's first masked column on."""

    def memory(self) -> CanvasMemory:
        return CanvasMemory()

    def renew(self, canvas: Canvas, memory: CanvasMemory | None, forward: int) -> torch.Tensor:
        assert memory is not None
        if memory.empty:
            return torch.ones_like(canvas.attends)
        return canvas.masked.cumsum(-1) > 0


def _counts(base: TableModel, policy: Policy, seed: int = 0) -> Counter[tuple[int, ...]]:
    out = dlmjoint.generate(base, DRAWS, policy, max_new_tokens=3, seed=seed, batch_size=1000)
    return Counter(tuple(sequence[1:]) for sequence in out.sequences)


def _p_value(base: TableModel, counts: Counter[tuple[int, ...]]) -> float:
    """Chi-square test of the draws against the table; cells expecting under 5 draws are pooled."""
    cells = list(product(range(3), repeat=3))
    expected = [float(base.joint[cell]) * DRAWS for cell in cells]
    found = [counts[cell] for cell in cells]
    large = [place for place, count in enumerate(expected) if count >= 5]
    pooled = [DRAWS - sum(values[p] for p in large) for values in (found, expected)]
    return chisquare(
        [found[p] for p in large] + pooled[:1], [expected[p] for p in large] + pooled[1:]
    ).pvalue


def _total_variation(base: TableModel, counts: Counter[tuple[int, ...]]) -> float:
    cells = product(range(3), repeat=3)
    return sum(abs(counts[cell] / DRAWS - float(base.joint[cell])) for cell in cells) / 2


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)
def test_one_token_per_forward_draws_the_exact_joint_in_any_order(table, order) -> None:
    counts = _counts(table, Policy(1, order=order))
    assert _p_value(table, counts) > 1e-3
    assert _total_variation(table, counts) < 0.04


@pytest.mark.parametrize("commits", [2, 3])
def test_marginals_do_not_draw_the_joint(table, commits: int) -> None:
    counts = _counts(table, Policy(commits))
    assert _p_value(table, counts) < 1e-6
    assert _total_variation(table, counts) > 0.08


def test_an_ideal_sampler_restores_the_joint_in_a_single_forward(table) -> None:
    policy = Policy(3, refine=AskAgain())
    assert _p_value(table, _counts(table, policy)) > 1e-3
    out = dlmjoint.generate(table, 10, policy, max_new_tokens=3)
    assert (out.base_forwards, out.sampler_passes, out.tokens_per_forward) == (10, 20, 3.0)


def _policies(sampler: JointSampler) -> dict[str, Policy]:
    joint = Joint(sampler)
    policies = {f"exact, {type(order).__name__}": Policy(order=order) for order in ORDERS}
    policies |= {f"marginals {k}": Policy(k) for k in (2, 5)}
    policies |= {f"joint {k}": Policy(k, refine=joint) for k in (1, 2, 5)}
    policies |= {
        "greedy joint": Policy(3, refine=joint, draw=Draw(temperature=0)),
        "cold nucleus": Policy(2, refine=joint, draw=Draw(temperature=0.5, top_p=0.8)),
        "blocks": Policy(2, refine=joint, block_length=3),
        "dream schedule": Policy(DreamSchedule(4), refine=joint),
    }
    return policies


POLICIES = list(_policies(JointSampler.from_base(Dream.random())))
every_policy = pytest.mark.parametrize("name", POLICIES)


@every_policy
def test_a_row_alone_is_decoded_as_in_a_left_padded_batch(
    name: str, random_dream: Dream, random_sampler: JointSampler
) -> None:
    policy = _policies(random_sampler)[name]
    prompts = [[5, 6, 7, 8, 9], [5], [6, 7, 8]]
    batch = dlmjoint.generate(random_dream, prompts, policy, max_new_tokens=8, seed=3)
    for row, prompt in enumerate(prompts):
        alone = dlmjoint.generate(
            random_dream, [prompt], policy, max_new_tokens=8, seed=3, first_id=row
        )
        assert alone.sequences[0] == batch.sequences[row]
        assert torch.equal(alone.trajectories[0].order, batch.trajectories[row].order)


@every_policy
def test_the_response_is_filled_and_the_prompt_is_left_alone(
    name: str, random_dream: Dream, random_sampler: JointSampler
) -> None:
    policy = _policies(random_sampler)[name]
    prompts = [[5, 39, 7], [6]]  # a prompt may quote the mask
    out = dlmjoint.generate(random_dream, prompts, policy, max_new_tokens=8)
    for sequence, prompt in zip(out.sequences, prompts, strict=True):
        assert sequence[: len(prompt)] == prompt
        assert random_dream.mask_id not in sequence[len(prompt) :]
    assert out.tally.tokens == 16


@every_policy
def test_commits_replayed_along_the_order_rebuild_every_canvas(
    name: str, random_dream: Dream, random_sampler: JointSampler
) -> None:
    policy = _policies(random_sampler)[name].prepare(random_dream)
    canvas = random_dream.canvas([[5, 6], [7, 8]], 8)
    steps = list(decode(random_dream, canvas, policy, Noise(0, (0, 1))))
    trajectories = dlmjoint.generate(
        random_dream, [[5, 6], [7, 8]], _policies(random_sampler)[name], max_new_tokens=8
    ).trajectories
    written = 0
    for step in steps:
        written += sum(int(commit.written[0].sum()) for commit in step.commits)
        for row, trajectory in enumerate(trajectories):
            state = trajectory.state(written, random_dream.mask_id)
            assert torch.equal(state, step.canvas.tokens[row, canvas.response])


def test_a_sampler_with_zero_gain_equals_the_marginals_token_for_token(
    random_dream: Dream,
) -> None:
    sampler = JointSampler.from_base(random_dream, gain=0.0).eval()
    for commits in (2, 4, 8):
        joint = dlmjoint.generate(
            random_dream, 20, Policy(commits, refine=Joint(sampler)), max_new_tokens=8
        )
        plain = dlmjoint.generate(random_dream, 20, Policy(commits), max_new_tokens=8)
        assert joint.sequences == plain.sequences


def test_a_sampler_with_gain_differs_from_the_marginals(
    random_dream: Dream, random_sampler: JointSampler
) -> None:
    joint = dlmjoint.generate(
        random_dream, 20, Policy(4, refine=Joint(random_sampler)), max_new_tokens=8
    )
    assert joint.sequences != dlmjoint.generate(random_dream, 20, Policy(4), 8).sequences


def test_with_one_token_per_forward_the_sampler_is_never_called(
    random_dream: Dream, random_sampler: JointSampler
) -> None:
    joint = dlmjoint.generate(random_dream, 5, Policy(1, refine=Joint(random_sampler)), 8)
    assert joint.sequences == dlmjoint.generate(random_dream, 5, Policy(), 8).sequences
    assert joint.sampler_passes == 0


def test_k_tokens_cost_one_forward_and_k_minus_one_passes(
    random_dream: Dream, random_sampler: JointSampler
) -> None:
    out = dlmjoint.generate(random_dream, 3, Policy(4, refine=Joint(random_sampler)), 8)
    assert (out.base_forwards, out.sampler_passes) == (3 * 2, 3 * 2 * 3)
    assert out.tokens_per_forward == 4.0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_forbidden_ids_are_never_written_not_even_after_a_sampler_pass(
    random_dream: Dream, temperature: float
) -> None:
    with torch.no_grad():  # a head that wants nothing but the mask, end- and beginning-of-text
        random_dream.network.lm_head.weight[[39, 0, 1]] *= 20
    random_sampler = JointSampler.from_base(random_dream, gain=1.0).eval()
    draw = Draw(temperature=temperature, forbid=(0, 1))
    for refine in (Marginals(), Joint(random_sampler)):
        out = dlmjoint.generate(random_dream, 20, Policy(4, refine=refine, draw=draw), 8)
        written = {token for sequence in out.sequences for token in sequence[1:]}
        assert not written & {39, 0, 1}


def test_end_of_text_is_written_unless_a_run_forbids_it(random_dream: Dream) -> None:
    with torch.no_grad():
        random_dream.network.lm_head.weight[0] = 0
        random_dream.network.lm_head.weight[0] += 5 * random_dream.network.lm_head.weight[7]
    sequences = dlmjoint.generate(random_dream, 10, Policy(), 8).sequences
    assert any(0 in sequence[1:] for sequence in sequences)


def test_batch_size_changes_nothing(random_dream: Dream, random_sampler: JointSampler) -> None:
    policy = Policy(3, refine=Joint(random_sampler))
    whole = dlmjoint.generate(random_dream, 10, policy, 8, batch_size=10)
    parts = dlmjoint.generate(random_dream, 10, policy, 8, batch_size=3)
    assert whole.sequences == parts.sequences
    assert whole.base_forwards == parts.base_forwards


def test_finishing_early_fills_those_rows_greedily_and_stops_paying_for_them(
    random_dream: Dream,
) -> None:
    out = dlmjoint.generate(random_dream, 4, Policy(2, early=OddRows()), 8)
    plain = dlmjoint.generate(random_dream, 4, Policy(2), 8)
    assert out.sequences[::2] == plain.sequences[::2]
    assert out.base_forwards == 2 * 4 + 2 * 1
    _, logits = random_dream.score(random_dream.canvas([[1]], 8).tokens)
    logits = forbid(logits, random_dream.forbidden_ids)
    assert out.sequences[1][1:] == logits[0, 1:].argmax(-1).tolist()


def test_left_to_right_with_a_window_from_the_first_mask_pays_fewer_columns(
    random_dream: Dream,
) -> None:
    policy = Policy(1, order=LeftToRight(), cache=FromFirstMask())
    cached = dlmjoint.generate(random_dream, 2, policy, 8)
    full = dlmjoint.generate(random_dream, 2, Policy(1, order=LeftToRight()), 8)
    assert cached.tally.columns < full.tally.columns
    assert all(len(sequence) == 9 for sequence in cached.sequences)


def test_blocks_are_finished_from_left_to_right(random_dream: Dream) -> None:
    out = dlmjoint.generate(random_dream, 3, Policy(2, block_length=4), 8)
    for trajectory in out.trajectories:
        assert sorted(trajectory.order[:4].tolist()) == [0, 1, 2, 3]


def test_left_to_right_writes_in_reading_order(random_dream: Dream) -> None:
    out = dlmjoint.generate(random_dream, 3, Policy(3, order=LeftToRight()), 8)
    assert all(t.order.tolist() == list(range(8)) for t in out.trajectories)


def test_log_probs_are_those_of_the_distribution_drawn_from(table) -> None:
    out = dlmjoint.generate(table, 50, Policy(), max_new_tokens=3)
    for trajectory in out.trajectories:
        expected = table.joint[tuple(trajectory.response.tolist())].log()
        torch.testing.assert_close(trajectory.log_probs.sum(), expected, atol=1e-5, rtol=1e-5)


def test_a_sampler_of_another_base_is_refused_before_decoding(
    random_sampler: JointSampler,
) -> None:
    with pytest.raises(MismatchError, match="belongs to"):
        dlmjoint.generate(Dream.random(seed=1), 1, Policy(2, refine=Joint(random_sampler)), 4)


def test_a_trained_sampler_named_by_its_folder_is_the_loaded_one(
    tmp_path, random_dream: Dream, random_sampler: JointSampler
) -> None:
    random_sampler.save_pretrained(tmp_path)
    named = dlmjoint.generate(random_dream, 5, Policy(4, refine=Trained(tmp_path)), 8)
    held = dlmjoint.generate(random_dream, 5, Policy(4, refine=Joint(random_sampler)), 8)
    assert named.sequences == held.sequences


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Policy(0), "commits_per_forward is 0"),
        (lambda: Policy(block_length=0), "block_length is 0"),
        (lambda: Draw(temperature=-1), "temperature is -1"),
        (lambda: Draw(top_p=0), "top_p is 0"),
        (lambda: DreamSchedule(0), "steps is 0"),
        (lambda: LladaSchedule(10, blocks=4), "10 steps do not divide into 4 blocks"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_construction(build, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_empty_prompts_are_refused(random_dream: Dream) -> None:
    with pytest.raises(ConfigError, match="prompt 1 is empty"):
        dlmjoint.generate(random_dream, [[1], []], max_new_tokens=4)
    with pytest.raises(ConfigError, match="no prompts"):
        dlmjoint.generate(random_dream, 0, max_new_tokens=4)


def test_a_cache_that_never_recomputes_a_masked_column_is_caught(random_dream: Dream) -> None:
    @dataclass(frozen=True)
    class Stuck(FromFirstMask):
        def renew(self, canvas: Canvas, memory: CanvasMemory | None, forward: int) -> torch.Tensor:
            cells = torch.ones_like(canvas.attends)
            if forward > 0:
                cells[:, 3:] = False
            return cells

    policy = Policy(order=LeftToRight(), cache=Stuck())
    with pytest.raises(AssertionError, match="writes nothing"):
        dlmjoint.generate(random_dream, 1, policy, 8)
