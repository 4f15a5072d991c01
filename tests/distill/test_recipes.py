"""What a batch is trained on: pairs, starts, the sampler's own windows."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.distill.losses import CrossEntropy, ForwardKL, forward_kl
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.objective import Objective
from dlmjoint.distill.on_policy import OnPolicy
from dlmjoint.distill.pairs import AllDepths, OneDepth
from dlmjoint.distill.start import Existing, Random
from dlmjoint.distill.starts import EveryState, WholeWindows
from dlmjoint.distill.unrolling.unroll import UnrollBatch, collate, unroll
from dlmjoint.errors import ConfigError, MismatchError
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.random import Noise, derive_seed
from dlmjoint.types import Canvas, Trajectory
from tests.conftest import GOLDEN

BASE = str(GOLDEN / "dream")
MASK, PAD = 510, 511


def _trajectory(example_id: int = 0, length: int = 9) -> Trajectory:
    generator = torch.Generator().manual_seed(example_id)
    return Trajectory(
        example_id,
        torch.arange(100, 102),
        torch.randint(1, 90, (length,), generator=generator),
        torch.randperm(length, generator=generator),
        torch.zeros(length),
    )


def _batch(rows: int = 3, width: int = 4, seed: int = 5) -> UnrollBatch:
    trajectories = [_trajectory(i) for i in range(rows)]
    return collate(trajectories, list(range(rows)), width, MASK, PAD, seed)


@pytest.fixture(scope="module")
def module() -> Distillation:
    return Distillation(BASE, depth=3)


def test_every_depth_of_every_start_shares_one_forward_per_state() -> None:
    plan = AllDepths().plan((1.0, 1.0, 1.0), _batch(width=6))
    assert plan.states == tuple(range(6))
    assert plan.pairs(6) == plan.passes(6) == 5 + 4 + 3


@pytest.mark.parametrize(("starts", "pairs"), [(1, 3), (2, 6), (5, 12), (9, 12)])
def test_unrolls_may_begin_at_a_windows_first_states_alone(starts: int, pairs: int) -> None:
    plan = AllDepths(starts).plan((1.0, 1.0, 1.0), _batch(width=6))
    assert plan.states == tuple(range(min(6, starts + 3)))  # no start and no target lies behind
    assert plan.pairs(6) == plan.passes(6) == pairs


def test_one_start_has_the_losses_it_has_among_all(module: Distillation) -> None:
    batch = _batch()
    alone = Distillation(BASE, depth=3, pairs=AllDepths(starts=1))
    alone.sampler.load_state_dict(module.sampler.state_dict())
    everything, losses, _ = module.losses(batch)
    found, loss, _ = alone.losses(batch)
    for depth in (1, 2, 3):
        here, among = found.depth == depth, everything.depth == depth
        owners = found.cells.owner[here]
        assert len(owners) == batch.masked[:, depth].sum()
        same = torch.isin(everything.cells.owner[among], owners)
        torch.testing.assert_close(loss[here], losses[among][same], rtol=1e-4, atol=1e-5)


def test_a_window_without_a_start_is_refused() -> None:
    with pytest.raises(ConfigError, match="starts is 0"):
        AllDepths(starts=0)


def test_the_papers_recipe_pays_two_forwards_for_one_pair() -> None:
    for seed in range(20):
        plan = OneDepth().plan((1.0, 1.0, 1.0), _batch(seed=seed))
        assert len(plan.states) == 2
        assert plan.pairs(4) == 1
        assert plan.passes(4) == plan.states[1]


def test_the_papers_depths_are_drawn_by_the_softmax_of_powers_of_a_half() -> None:
    draws = Counter(
        len(OneDepth().plan((1.0,) * 3, _batch(rows=1, seed=seed)).weights) for seed in range(4000)
    )
    for depth, expected in {1: 0.481, 2: 0.292, 3: 0.227}.items():
        assert draws[depth] / 4000 == pytest.approx(expected, abs=0.03)


def test_the_papers_recipe_leaves_out_cells_that_end_as_padding() -> None:
    batch = _batch()
    low = batch.final < 50
    batch = replace(batch, final=torch.where(low, PAD, batch.final))
    kept = OneDepth().cells(batch, PAD)
    assert torch.equal(kept, batch.masked & ~low[:, None])
    assert kept.sum() < batch.masked.sum()
    assert torch.equal(OneDepth(skip_padding=False).cells(batch, PAD), batch.masked)
    assert torch.equal(AllDepths().cells(batch, PAD), batch.masked)


def test_a_pair_of_the_papers_recipe_has_the_loss_written_out_by_hand(
    module: Distillation,
) -> None:
    batch = _batch(rows=1)
    paper = Distillation(BASE, depth=3, pairs=OneDepth())
    paper.sampler.load_state_dict(module.sampler.state_dict())
    found, loss, _ = paper.losses(batch)
    depth = int(found.depth[0])
    base, states = paper.base, batch.states[0]

    def hidden_of(state: int) -> torch.Tensor:
        return base.predict(Canvas(states[state][None], batch.attends, batch.response, MASK)).hidden

    hidden = hidden_of(0)
    canvas = batch.canvas([0])
    for state in range(1, depth + 1):
        hidden = paper.sampler(
            base.embed(states[state][None]), hidden, canvas.positions, batch.attends
        )
    cells = (states[depth] == MASK) & (batch.final[0] != base.pad_id)
    teacher = paper.log_probs(hidden_of(depth)[0, cells])
    expected = forward_kl(teacher, paper.log_probs(hidden[0, cells]))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert (found.depth == depth).all()


def test_all_depths_together_have_the_losses_of_each_pair_alone(module: Distillation) -> None:
    batch = _batch()
    found, loss, _ = module.losses(batch)
    target = module.base.predict(batch.canvas()).hidden.unflatten(0, (3, 4))
    for depth, hidden in enumerate(unroll(module.base, module.sampler, batch, target[:, :3], 3), 1):
        cells = batch.masked[:, depth:]
        expected = forward_kl(
            module.log_probs(target[:, depth:][cells]), module.log_probs(hidden[cells])
        )
        got = loss[found.depth == depth]
        torch.testing.assert_close(got.sum(), expected.sum(), rtol=1e-4, atol=1e-4)
        assert len(got) == len(expected)


def test_the_size_of_chunks_changes_neither_loss_nor_gradient(module: Distillation) -> None:
    batch = _batch()
    found = {}
    for chunk in (1, 7, 1000):
        module.head_chunk = chunk
        module.zero_grad()
        loss = module.losses(batch)[1].sum()
        loss.backward()
        found[chunk] = (loss.detach(), module.sampler.project.weight.grad.clone())  # pyright: ignore[reportOptionalMemberAccess]
    module.head_chunk = None
    for chunk in (1, 7):
        torch.testing.assert_close(found[chunk], found[1000], rtol=1e-4, atol=1e-5)


def test_a_depth_without_weight_is_not_computed() -> None:
    module = Distillation(BASE, depth=3, depth_weights=[0.0, 0.0, 1.0])
    found, _, _ = module.losses(_batch())
    assert set(found.depth.tolist()) == {3}


def test_the_cell_the_base_would_write_next_counts_more(module: Distillation) -> None:
    batch = _batch()
    weighted = Distillation(BASE, depth=3, objective=Objective(next_weight=4.0))
    found, _, counts = weighted.losses(batch)
    assert set(counts.tolist()) == {1.0, 5.0}
    hidden = weighted.base.predict(batch.canvas()).hidden
    log_probs = weighted.log_probs(hidden)
    entropies = -(log_probs.exp() * log_probs.clamp(min=-1e9)).sum(-1).unflatten(0, (3, 4))
    best = entropies.masked_fill(~batch.masked, torch.inf)[:, 1:].argmin(-1)
    masked = batch.masked[:, 1:].any(-1)
    expected = {(row, state + 1, int(best[row, state])) for row, state in masked.nonzero().tolist()}
    targets = batch.masked.clone()
    targets[:, 0] = False
    cells = targets.nonzero()[found.cells.owner[counts == 5.0]]
    assert {tuple(cell) for cell in cells.tolist()} == expected


def test_whole_windows_end_before_the_first_padding() -> None:
    trajectory = _trajectory(length=9)
    response = trajectory.response.clone()
    response[trajectory.order[5]] = PAD
    padded = replace(trajectory, response=response)
    assert WholeWindows().of(trajectory, 4, PAD) == range(6)
    assert WholeWindows().of(padded, 4, PAD) == range(3)
    last = WholeWindows().of(padded, 4, PAD)[-1] + 3
    assert PAD not in padded.state(last, MASK)
    assert PAD in padded.state(last + 1, MASK)
    assert WholeWindows(until_padding=False).of(padded, 4, PAD) == range(6)
    assert not WholeWindows().of(padded, 8, PAD)
    assert EveryState().of(padded, 4, PAD) == range(-2, 8)


def test_the_sampler_writes_its_own_windows_as_a_decoding_would(module: Distillation) -> None:
    batch = _batch(rows=2, width=4)
    own = OnPolicy(rate=1.0).rewrite(batch, module.base, module.sampler, step=0)
    policy = Policy(3, refine=Joint(module.sampler)).prepare(module.base)
    noise = Noise(derive_seed(batch.seed, "on-policy"), (0, 1))
    (step, *_) = decode(module.base, batch.canvas([0]), policy, noise)
    assert torch.equal(own.states[:, 0], batch.states[:, 0])
    assert torch.equal(own.states[:, 3], step.canvas.tokens)
    left = own.masked.sum(-1)
    assert torch.equal(left[:, :1] - left, torch.arange(4).expand(2, 4))
    assert not torch.equal(own.states[:, 3], batch.states[:, 3])


def test_targets_of_own_windows_are_the_base_on_those_canvases() -> None:
    module = Distillation(BASE, depth=3, on_policy=OnPolicy(rate=1.0))
    batch = _batch()
    own = module.on_policy.rewrite(batch, module.base, module.sampler, 0)  # pyright: ignore[reportOptionalMemberAccess]
    found, _, _ = module.losses(batch)
    expected = module.base.predict(own.canvas()).hidden.unflatten(0, own.states.shape[:2])
    aimed = own.masked.clone()
    aimed[:, 0] = False
    torch.testing.assert_close(found.cells.teacher, expected[aimed])


def test_windows_near_the_end_stay_the_trajectorys(module: Distillation) -> None:
    trajectory = _trajectory()
    batch = collate([trajectory, trajectory], [0, 7], 4, MASK, PAD)
    own = OnPolicy(rate=1.0).rewrite(batch, module.base, module.sampler, 0)
    assert not torch.equal(own.states[0], batch.states[0])
    assert torch.equal(own.states[1], batch.states[1])


def test_rows_written_by_the_sampler_do_not_depend_on_how_processes_share_a_batch(
    module: Distillation,
) -> None:
    batch = _batch(rows=4)
    whole = OnPolicy(rate=0.5).rewrite(batch, module.base, module.sampler, 0)
    for rank in (0, 1):
        rows = slice(rank, None, 2)
        part = replace(
            batch,
            states=batch.states[rows],
            attends=batch.attends[rows],
            final=batch.final[rows],
            places=batch.places[rows],
        )
        mine = OnPolicy(rate=0.5).rewrite(part, module.base, module.sampler, 0)
        assert torch.equal(mine.states, whole.states[rows])


def test_the_share_of_own_windows_ramps_linearly() -> None:
    ramp = OnPolicy(rate=0.8, start=0.2, ramp=10)
    assert [ramp.share(step) for step in (0, 5, 10, 99)] == pytest.approx([0.2, 0.5, 0.8, 0.8])


def test_a_random_start_adds_a_unit_vector_and_an_existing_one_goes_on(tmp_path: Path) -> None:
    module = Distillation(BASE, depth=1, start=Random())
    assert (module.sampler.gain.weight == 1).all()
    hidden = torch.randn(1, 5, module.base.hidden_size)
    after = module.sampler(
        hidden, hidden, torch.arange(5)[None], torch.ones(1, 5, dtype=torch.bool)
    )
    size = (after - hidden).square().mean(-1).sqrt()
    torch.testing.assert_close(size, torch.ones_like(size), rtol=1e-3, atol=1e-3)
    module.sampler.save_pretrained(tmp_path)
    again = Distillation(BASE, depth=1, start=Existing(tmp_path)).sampler
    assert torch.equal(again.project.weight, module.sampler.project.weight)


def test_a_sampler_of_another_base_is_a_start_where_that_is_asked_for(tmp_path: Path) -> None:
    Distillation(BASE, depth=1, start=Random()).sampler.save_pretrained(tmp_path)
    trained, other = JointSampler.from_pretrained(tmp_path), load_base(BASE)
    with torch.no_grad():
        other.network.get_output_embeddings().weight[0] += 1
    other.__dict__.pop("fingerprint", None)
    with pytest.raises(MismatchError, match="belongs to"):
        Existing(tmp_path)(other)
    moved = Existing(tmp_path, any_base=True)(other)
    moved.check(other)
    assert moved.training
    assert all(parameter.requires_grad for parameter in moved.parameters())
    for name, weight in trained.state_dict().items():
        assert torch.equal(moved.state_dict()[name], weight), name
    with pytest.raises(MismatchError, match="do not fit a sampler over"):
        Existing(tmp_path, any_base=True)(Dream.random())


def test_the_unroll_from_some_starts_is_part_of_the_unroll_from_all(
    random_dream: Dream, random_sampler: JointSampler
) -> None:
    trajectory = replace(_trajectory(), response=torch.arange(2, 11), prompt=torch.tensor([1, 5]))
    batch = collate([trajectory], [1], 5, random_dream.mask_id, 0)
    start = random_dream.predict(batch.canvas()).hidden[None]
    every = unroll(random_dream, random_sampler, batch, start[:, :4], 4)
    first = unroll(random_dream, random_sampler, batch, start[:, :1], 4)
    for some, all_ in zip(first, every, strict=True):
        torch.testing.assert_close(some[:, 0], all_[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 2, "depth_weights": [0.0, 0.0]}, "none below 0"),
        ({"head_chunk": 0}, "head_chunk is 0"),
        (
            {"on_policy": OnPolicy(), "objective": Objective(CrossEntropy())},
            "no final tokens",
        ),
    ],
)
def test_recipes_that_cannot_work_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Distillation(BASE, **settings)


@pytest.mark.parametrize("wrong", [{"rate": 1.5}, {"start": -0.1}, {"ramp": -1}])
def test_shares_outside_their_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        OnPolicy(**wrong)


def test_weights_of_an_objective_are_not_negative() -> None:
    with pytest.raises(ConfigError, match="drift_weight"):
        Objective(ForwardKL(), drift_weight=-1.0)
