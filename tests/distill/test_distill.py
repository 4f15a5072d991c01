"""Distillation: states, losses, the unroll, exact resume, and that it learns."""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from dlmjoint.distill.data import Fixed, TrajectoryData, Windows
from dlmjoint.distill.losses import forward_kl, same_top
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.objective import Objective
from dlmjoint.distill.start import LastBlock
from dlmjoint.distill.unrolling.unroll import collate, unroll, window
from dlmjoint.errors import ConfigError, MismatchError
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.trajectories.generate import generate
from dlmjoint.trajectories.prompts import Unconditional
from dlmjoint.trajectories.store import TrajectoryStore
from dlmjoint.types import Trajectory
from tests.conftest import GOLDEN
from tests.distill.trainer import small_trainer

BASE = str(GOLDEN / "dream")
MASK = 510


def _trajectory(length: int = 5, prompt: int = 2, example_id: int = 0) -> Trajectory:
    return Trajectory(
        example_id,
        torch.arange(100, 100 + prompt),
        torch.arange(1, length + 1),
        torch.randperm(length, generator=torch.Generator().manual_seed(example_id)),
        torch.zeros(length),
    )


def test_a_window_holds_consecutive_states() -> None:
    trajectory = _trajectory()
    states = window(trajectory, 1, 3, MASK)
    assert torch.equal(states, torch.stack([trajectory.state(s, MASK) for s in (1, 2, 3)]))


def test_a_window_before_the_start_begins_at_the_first_state_and_ends_where_it_would() -> None:
    trajectory = _trajectory()
    states = window(trajectory, -2, 4, MASK)
    assert torch.equal(states[:2], torch.stack([trajectory.state(s, MASK) for s in (0, 1)]))
    assert torch.equal(states[2:], trajectory.response.expand(2, -1))


def test_uniform_window_starts_make_every_state_an_equally_frequent_start() -> None:
    steps, width = 7, 4
    counts = torch.zeros(steps, dtype=torch.long)
    trajectory = _trajectory(steps)
    masks = {steps - int(s): int(s) for s in range(steps + 1)}
    for start in range(2 - width, steps - 1):
        states = window(trajectory, start, width, MASK)
        left = (states == MASK).sum(-1).tolist()
        for here, there in itertools.pairwise(left):
            if there == here - 1 and there > 0:
                counts[masks[here]] += 1
    assert len(set(counts[: steps - 1].tolist())) == 1


def test_prompts_are_padded_on_the_left() -> None:
    batch = collate([_trajectory(prompt=4), _trajectory(prompt=1)], [0, 0], 2, MASK, 9)
    assert batch.states[1, 0, :4].tolist() == [9, 9, 9, 100]
    assert batch.attends[1].tolist() == [False] * 3 + [True] * 6


def test_the_gradient_of_forward_kl_is_finite_with_forbidden_ids() -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    blocked = logits.masked_fill(torch.arange(5) == 2, -torch.inf).log_softmax(-1)
    teacher = torch.randn(3, 5).masked_fill(torch.arange(5) == 2, -torch.inf).log_softmax(-1)
    forward_kl(teacher, blocked).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_same_top_counts_agreement() -> None:
    a, b = torch.eye(3), torch.eye(3).flip(0)
    assert same_top(a, b).tolist() == [0, 1, 0]


def test_shapes_are_checked_in_tests() -> None:
    with pytest.raises(TypeError):
        forward_kl(torch.zeros(2, 3), torch.zeros(4, 5))


@torch.no_grad()
def test_the_unroll_is_the_sampler_applied_along_the_states(
    random_dream: Dream, random_sampler: JointSampler
) -> None:
    trajectory = Trajectory(
        0, torch.tensor([1, 5]), torch.arange(2, 8), torch.randperm(6), torch.zeros(6)
    )
    batch = collate([trajectory], [1], 4, random_dream.mask_id, 0)
    canvas = batch.canvas()
    start = random_dream.predict(canvas).hidden
    for passes, hidden in enumerate(
        unroll(random_dream, random_sampler, batch, start[None], depth=3), 1
    ):
        assert hidden.shape[1] == 4 - passes
        for origin in range(4 - passes):
            expected = start[origin : origin + 1]
            for state in range(origin + 1, origin + passes + 1):
                expected = random_sampler(
                    random_dream.embed(batch.states[:, state]),
                    expected,
                    canvas.positions[:1],
                    batch.attends,
                )
            torch.testing.assert_close(hidden[0, origin], expected[0], atol=1e-5, rtol=1e-5)


def _windows(folder: Path, **settings) -> Windows:
    store = TrajectoryStore.open(folder)
    arguments = {"batch_size": 4, "window": 3, "seed": 0} | settings
    return Windows([store.trajectories()], store.manifest, **arguments)


def test_processes_share_out_the_same_batch(folder: Path) -> None:
    whole = _windows(folder)[5].states
    parts = [_windows(folder, rank=rank, world_size=2)[5].states for rank in (0, 1)]
    assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole)


def test_batches_are_drawn_by_seed_and_number(folder: Path) -> None:
    assert torch.equal(_windows(folder)[3].states, _windows(folder)[3].states)
    assert not torch.equal(_windows(folder)[3].states, _windows(folder)[4].states)
    assert not torch.equal(_windows(folder)[3].states, _windows(folder, seed=1)[3].states)


def test_several_folders_are_drawn_by_their_shares_and_a_batch_is_of_one(
    folder: Path, tmp_path: Path
) -> None:
    other = generate(
        BASE,
        tmp_path,
        Unconditional(len(TrajectoryStore.open(folder).trajectories()) // 3),
        max_new_tokens=9,
        block_length=3,
        device="cpu",
    )
    store = TrajectoryStore.open(folder)
    windows = Windows(
        [store.trajectories(), other.trajectories()],
        store.manifest,
        batch_size=2,
        window=3,
        seed=0,
    )
    lengths = [windows[t].response.stop - windows[t].response.start for t in range(200)]
    assert set(lengths) == {9, store.manifest.max_new_tokens}
    assert 25 < lengths.count(9) < 75  # a quarter of 200, within five standard deviations


def test_trajectories_in_blocks_finish_one_block_before_the_next(tmp_path: Path) -> None:
    store = generate(
        BASE,
        tmp_path,
        Unconditional(3),
        max_new_tokens=6,
        block_length=3,
        device="cpu",
    )
    assert all(sorted(t.order[:3].tolist()) == [0, 1, 2] for t in store.trajectories())


def test_a_validation_set_ends(folder: Path) -> None:
    assert sum(1 for _ in Fixed(_windows(folder), 3)) == 3


def _data(folder: Path, **settings) -> TrajectoryData:
    return TrajectoryData(folder, **{"batch_size": 4, "window": 4, "val_batches": 2} | settings)


def _weights(module: Distillation) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.sampler.state_dict().items()}


def test_an_interrupted_fit_resumes_to_the_uninterrupted_weights(
    tmp_path: Path, folder: Path
) -> None:
    whole = Distillation(BASE, depth=3)
    small_trainer(tmp_path / "a", 8).fit(whole, _data(folder))
    first = Distillation(BASE, depth=3)
    keep = ModelCheckpoint(tmp_path / "b", every_n_train_steps=1, save_top_k=-1)
    small_trainer(tmp_path / "b", 5, keep).fit(first, _data(folder))
    resumed = Distillation(BASE, depth=3)
    small_trainer(tmp_path / "c", 8).fit(
        resumed,
        _data(folder),
        ckpt_path=keep.best_model_path or keep.last_model_path,
        weights_only=False,
    )
    for name, tensor in _weights(whole).items():
        torch.testing.assert_close(_weights(resumed)[name], tensor, atol=0, rtol=0)


def test_a_checkpoint_holds_the_layer_alone(tmp_path: Path, folder: Path) -> None:
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=2)
    module = Distillation(BASE, depth=1)
    small_trainer(tmp_path, 2, keep).fit(module, _data(folder, window=2))
    state = torch.load(keep.best_model_path, weights_only=False)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"sampler"}
    assert set(state) == {f"sampler.{name}" for name in module.sampler.state_dict()}


def test_fitting_brings_every_depths_kl_below_the_marginals_and_exports_the_sampler(
    tmp_path: Path, folder: Path, golden_dream: TransformerBase
) -> None:
    module = Distillation(BASE, depth=2, export=tmp_path / "sampler")
    trainer = small_trainer(tmp_path, 150)
    trainer.fit(module, _data(folder, window=4, batch_size=8))
    found = trainer.callback_metrics
    for depth in (1, 2):
        assert found[f"val/kl@{depth}"] < found[f"val/marginal_kl@{depth}"]
        assert 0 <= found[f"val/top1@{depth}"] <= 1
    exported = JointSampler.from_pretrained(tmp_path / "sampler")
    exported.check(golden_dream)
    assert exported.config.trained_depth == 2
    assert {path.name for path in (tmp_path / "sampler").iterdir()} == {
        "config.json", "model.safetensors", "provenance.json", "metrics.json",
    }  # fmt: skip


@pytest.mark.slow  # compiling takes a minute
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_a_compiled_layer_learns_the_same_and_exports_the_same_names(
    tmp_path: Path, folder: Path
) -> None:
    # In processes of their own: the tests' checks of shapes cannot be traced.
    for name, compiled in (("plain", "false"), ("compiled", "true")):
        given = {
            "model.base": BASE,
            "model.export": tmp_path / name,
            "model.compile_layer": compiled,
            "data.path": folder,
            "data.batch_size": 4,
            "trainer.max_steps": 3,
            "trainer.accelerator": "cpu",
            "trainer.default_root_dir": tmp_path,
        }
        flags = [f"--{key}={value}" for key, value in given.items()]
        subprocess.run([sys.executable, "-m", "dlmjoint", "fit", *flags], check=True)
    ours, theirs = (
        JointSampler.from_pretrained(tmp_path / name).state_dict() for name in ("plain", "compiled")
    )
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, atol=1e-5, rtol=1e-3)


def test_the_marginals_kl_is_what_a_sampler_with_zero_gain_has(
    tmp_path: Path, folder: Path
) -> None:
    module = Distillation(BASE, depth=3, start=LastBlock(gain=0.0))
    (found,) = small_trainer(tmp_path, 1).validate(module, _data(folder), verbose=False)
    for depth in (1, 2, 3):
        assert found[f"val/kl@{depth}"] == found[f"val/marginal_kl@{depth}"] > 0


def test_hidden_state_terms_add_to_the_loss(folder: Path) -> None:
    batch = Fixed(_windows(folder, window=4), 1)[0]
    settings = ({}, {"hidden_weight": 1.0}, {"drift_weight": 1.0})
    plain, hidden, drift = (
        Distillation(BASE, depth=2, objective=Objective(**chosen)).losses(batch)[1].detach()
        for chosen in settings
    )
    assert (hidden > plain).all()
    assert (drift >= plain).all()
    assert (drift > plain).any()


def test_a_window_too_short_for_the_depth_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="depth of 3 needs 4 states"):
        small_trainer(tmp_path, 1).fit(Distillation(BASE, depth=3), _data(folder, window=3))


def test_trajectories_of_another_base_are_refused(tmp_path: Path, folder: Path) -> None:
    module = Distillation(BASE, depth=1)
    module.base = Dream.random()
    with pytest.raises(MismatchError, match="was drawn from"):
        small_trainer(tmp_path, 1).fit(module, _data(folder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"depth": 0}, "depth is 0"), ({"depth": 2, "depth_weights": [1.0]}, "has 1 entries")],
)
def test_settings_that_cannot_work_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Distillation(BASE, **settings)
