"""Windows inside blocks: what a sampler over a base that writes block after block is trained on."""

from pathlib import Path

import pytest
import torch

import dlmjoint
from dlmjoint.decoding.caches.exact_blocks import ExactBlocks
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.on_policy import OnPolicy
from dlmjoint.distill.online import OnlineData
from dlmjoint.distill.unrolling.blocks import by_blocks, predict_blocks, unroll_blocks
from dlmjoint.distill.unrolling.unroll import collate, unroll
from dlmjoint.errors import ConfigError
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.models.sdar import Sdar
from dlmjoint.trajectories.generate import generate
from dlmjoint.trajectories.prompts import Unconditional
from dlmjoint.trajectories.states import turns
from dlmjoint.trajectories.store import TrajectoryStore
from dlmjoint.types import Trajectory
from tests.conftest import GOLDEN
from tests.distill.trainer import small_trainer

PROMPTS = [[5, 6, 7, 8, 9, 10], [5], [6, 7, 8, 9]]
NO_END = Draw(forbid=(0,))


def _drawn(base: Sdar, policy: Policy, length: int = 13) -> list[Trajectory]:
    return dlmjoint.generate(base, PROMPTS, policy, length, seed=3).trajectories


def test_blocks_hold_every_written_token_once_behind_their_exact_prefix() -> None:
    base = Sdar.random()
    for trajectory in _drawn(base, Policy(draw=NO_END)):
        whole = torch.cat([trajectory.prompt, trajectory.response])
        blocks = by_blocks([trajectory], 4, base.end_ids)
        columns = [(b.order + len(b.prompt) - len(trajectory.prompt)).tolist() for b in blocks]
        whole_blocks = len(whole) // 4 * 4 - len(trajectory.prompt)
        written = [column for block in columns for column in block]
        assert written == trajectory.order[:whole_blocks].tolist()
        for block in blocks:
            assert len(block.response) == 4
            found = torch.cat([block.prompt, block.response])
            assert torch.equal(found, whole[: len(found)])


def test_blocks_behind_the_end_of_a_text_are_left_out() -> None:
    response = torch.tensor([5, 6, 0, 0, 0, 0, 0, 0, 0, 0])
    order = torch.arange(10)
    trajectory = Trajectory(0, torch.tensor([7, 7]), response, order, torch.zeros(10))
    assert [b.order.tolist() for b in by_blocks([trajectory], 4, (0,))] == [[2, 3], [0, 1, 2, 3]]
    assert len(by_blocks([trajectory], 4, (9,))) == 3


def test_a_block_the_canvas_ends_in_is_left_out() -> None:
    order = torch.arange(5)
    trajectory = Trajectory(7, torch.tensor([1]), torch.full((5,), 6), order, torch.zeros(5))
    assert [b.order.tolist() for b in by_blocks([trajectory], 4, (0,))] == [[1, 2, 3]]


@torch.no_grad()
def test_unrolls_in_training_are_the_passes_of_decoding() -> None:
    base = Sdar.random()
    sampler = JointSampler.from_base(base, gain=1.0).eval()
    policy = Policy(4, draw=NO_END, refine=Joint(sampler), cache=ExactBlocks())
    blocks = by_blocks(_drawn(base, policy), 4, base.end_ids)
    batch = collate(blocks, [0] * len(blocks), 4, base.mask_id, base.pad_id)
    hidden = base.predict(batch.canvas([0])).hidden[:, None]
    states = [hidden, *unroll(base, sampler, batch, hidden, 3)]
    draw = NO_END.prepare(base)
    compared = 0
    for row, block in enumerate(blocks):
        for step, column in enumerate(block.order.tolist()):
            place = batch.response.start + column
            log_probs = draw.log_probs(base.unembed(states[step][row, 0, place]))
            expected = float(block.log_probs[step])
            assert float(log_probs[block.response[column]]) == pytest.approx(expected, abs=1e-4)
            compared += 1
    assert compared == 10 + 11 + 12


@torch.no_grad()
def test_a_prefix_computed_once_gives_what_whole_canvases_do() -> None:
    base = Sdar.random()
    sampler = JointSampler.from_base(base, gain=1.0).eval()
    blocks = by_blocks(_drawn(base, Policy(draw=NO_END)), 4, base.end_ids)
    batch = collate(blocks, [0] * len(blocks), 4, base.mask_id, base.pad_id)
    whole = base.predict(batch.canvas()).hidden.unflatten(0, (len(blocks), 4))
    prefix, packed = predict_blocks(base, batch, range(4))
    masked = batch.masked
    cells = masked[..., batch.response]
    torch.testing.assert_close(packed[cells], whole[masked], atol=1e-5, rtol=1e-4)
    slow = unroll(base, sampler, batch, whole[:, :3], 3)
    fast = unroll_blocks(base, sampler, batch, prefix, packed[:, :3], 3)
    for depth, (one, other) in enumerate(zip(slow, fast, strict=True), 1):
        here = slice(depth, depth + one.shape[1])
        found, expected = other[cells[:, here]], one[masked[:, here]]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


SDAR = str(GOLDEN / "sdar")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trajectories of the golden SDAR, whose blocks have four columns."""
    path = tmp_path_factory.mktemp("blocks")
    generate(SDAR, path, Unconditional(24), max_new_tokens=11, device="cpu")
    return path


def test_a_sampler_over_blocks_is_trained_and_learns(folder: Path, tmp_path: Path) -> None:
    module = Distillation(SDAR, depth=3, export=tmp_path / "sampler")
    data = TrajectoryData(folder, batch_size=8, window=4, val_batches=2)
    trainer = small_trainer(tmp_path, 40, val_check_interval=40)
    trainer.fit(module, datamodule=data)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for depth in (1, 2, 3):
        assert found[f"val/kl@{depth}"] < 0.95 * found[f"val/marginal_kl@{depth}"]
    sampler = JointSampler.from_pretrained(tmp_path / "sampler")
    assert sampler.attention.block_length == 4
    sampler.check(module.base)


def test_windows_longer_than_a_block_are_refused(folder: Path, tmp_path: Path) -> None:
    module = Distillation(SDAR, depth=3)
    with pytest.raises(ConfigError, match=r"window is 6, but a block of .* has 5 states"):
        small_trainer(tmp_path, 1).fit(module, datamodule=TrajectoryData(folder, window=6))


def test_what_does_not_stay_inside_blocks_is_refused_for_block_bases() -> None:
    base = Sdar.random()
    with pytest.raises(ConfigError, match="train on stored trajectories"):
        OnlineData(Unconditional(4)).check(base)
    with pytest.raises(ConfigError, match="measures per depth"):
        next(turns(base, _drawn(base, Policy(draw=NO_END)), Policy().prepare(base)))


def test_own_windows_are_written_inside_blocks_whatever_ends_their_prompt_holds(
    folder: Path,
) -> None:
    base = load_base(SDAR)
    sampler = JointSampler.from_base(base, gain=1.0)
    blocks = by_blocks(TrajectoryStore.open(folder).trajectories(), 4, base.end_ids)
    assert (
        blocks[0].response[0] in base.end_ids
    )  # the golden base begins texts with its end-of-text
    batch = collate(blocks, [0] * len(blocks), 4, base.mask_id, base.pad_id)
    written = OnPolicy(rate=1.0).rewrite(batch, base, sampler, step=0)
    assert not torch.equal(written.states, batch.states)
    left = written.masked.sum(-1)
    assert torch.equal(left[:, :1] - left, torch.arange(4).expand_as(left))
