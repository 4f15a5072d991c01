"""A fit that is killed, asked to end, or stopped between two steps goes on as if nothing had been."""

import os
import random
import signal
import time
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file

from dlmjoint import cli
from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.on_policy import OnPolicy
from dlmjoint.distill.running.interrupt import EXIT_STATUS, SaveAndExit
from dlmjoint.errors import MismatchError
from dlmjoint.models.load import load_base
from tests.conftest import GOLDEN
from tests.distill.processes import command, finish, start
from tests.distill.trainer import small_trainer

BASE = str(GOLDEN / "dream")
STEPS, SAVES = 24, 3
"""Of a fit, and between two of its checkpoints."""
FIT = """
seed_everything: {seed}
trainer:
  accelerator: cpu
  devices: {devices}
  strategy: {strategy}
  max_steps: {steps}
  val_check_interval: 10
  accumulate_grad_batches: 2
  gradient_clip_val: 1.0
  enable_progress_bar: false
  default_root_dir: {root}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{every_n_train_steps: {saves}, save_last: true}}
model:
  base: {base}
  depth: 2
  on_policy: {{class_path: dlmjoint.distill.on_policy.OnPolicy, init_args: {{rate: 0.5, ramp: 30}}}}
  optimizer:
    class_path: dlmjoint.distill.optim.MuonAdamW
    init_args: {{lr: 1.0e-3, muon_lr: 1.0e-2}}
  scheduler:
    class_path: torch.optim.lr_scheduler.LinearLR
    init_args: {{start_factor: 1.0, end_factor: 0.1, total_iters: {steps}}}
data: {{path: {data}, batch_size: 4, window: 4, val_batches: 1}}
"""


class Run:
    """A fit by the command in processes of its own, and what comes of it."""

    def __init__(self, root: Path, folder: Path, world_size: int, seed: int = 0) -> None:
        self.root, self.world_size = root, world_size
        root.mkdir(parents=True)
        self.config = root / "fit.yaml"
        strategy = "ddp" if world_size > 1 else "auto"
        self.config.write_text(
            FIT.format(
                base=BASE,
                root=root,
                data=folder,
                devices=world_size,
                strategy=strategy,
                seed=seed,
                steps=STEPS,
                saves=SAVES,
            )
        )

    def start(self) -> list:
        """Start it, or go on from the last checkpoint if there is one."""
        arguments = ["fit", "--config", str(self.config), "--ckpt_path", "last"]
        return start(self.world_size, command, arguments)

    def wait(self, processes: list, step: int = SAVES) -> None:
        """Until there is a checkpoint of this step, or of a later one."""
        while self._saved() < step:
            assert all(process.is_alive() for process in processes), "it ended before a checkpoint"
            time.sleep(0.01)

    def _saved(self) -> int:
        """The step of the newest checkpoint beside a last one; 0 without."""
        there = [path.stem for path in (self.root / "checkpoints").glob("*.ckpt")]
        steps = [int(name.partition("step=")[2]) for name in there if "step=" in name]
        return max(steps, default=0) if any(name.startswith("last") for name in there) else 0

    @property
    def layer(self) -> bytes:
        """The exported sampler's weights."""
        return (self.root / "sampler" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[int, tuple[bytes, float]]:
    """The layers of uninterrupted runs by number of processes, and seconds after a checkpoint."""
    found = {}
    for world_size in (1, 2):
        run = Run(tmp_path_factory.mktemp("whole") / "run", folder, world_size)
        processes = run.start()
        run.wait(processes)
        began = time.monotonic()
        assert finish(processes) == [0] * world_size
        found[world_size] = run.layer, time.monotonic() - began
    return found


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_killed_at_any_moment_and_resumed_ends_with_the_same_layer(
    tmp_path: Path, folder: Path, whole: dict[int, tuple[bytes, float]], world_size: int
) -> None:
    layer, seconds = whole[world_size]
    run = Run(tmp_path / "run", folder, world_size, seed=1)  # of nothing that is trained with
    # A moment by the clock alone may lie behind the end: this run may be several times as fast.
    chance = random.SystemRandom()
    step, moment = SAVES * chance.randint(1, 4), chance.uniform(0, seconds * SAVES / STEPS)
    processes = run.start()
    run.wait(processes, step)
    time.sleep(moment)
    for process in processes:
        process.kill()
    when = f"killed {moment} s after the checkpoint of step {step}"
    assert finish(processes) == [-signal.SIGKILL] * world_size, when
    assert not (run.root / "sampler").exists()
    assert finish(run.start()) == [0] * world_size
    assert run.layer == layer, when


@pytest.mark.slow
def test_processes_of_which_one_is_asked_to_end_save_together_and_go_on_to_the_same_layer(
    tmp_path: Path, folder: Path, whole: dict[int, tuple[bytes, float]]
) -> None:
    run = Run(tmp_path / "run", folder, 2)
    processes = run.start()
    run.wait(processes)
    processes[1].terminate()
    assert finish(processes) == [EXIT_STATUS, 0]
    assert not (run.root / "sampler").exists()
    assert finish(run.start()) == [0, 0]
    assert run.layer == whole[2][0]


def _trainer(root: Path, steps: int, *callbacks: L.Callback, accumulate: int = 1) -> L.Trainer:
    settings = {"accumulate_grad_batches": accumulate, "inference_mode": False}
    return small_trainer(root, steps, *callbacks, **settings)


def _data(folder: Path, **settings) -> TrajectoryData:
    return TrajectoryData(folder, **{"batch_size": 4, "window": 4, "val_batches": 1} | settings)


def _same(one: Distillation, other: Distillation) -> bool:
    pairs = zip(one.sampler.parameters(), other.sampler.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class At(L.Callback):
    """Does something after a batch."""

    def __init__(self, batch: int, what) -> None:
        self.batch, self.what = batch, what

    def on_train_batch_end(self, trainer: L.Trainer, pl_module, outputs, batch, batch_idx) -> None:
        """See the class."""
        if batch_idx == self.batch:
            self.what(trainer)


@pytest.mark.parametrize("batch", [3, 4, 5])
def test_a_checkpoint_between_two_steps_is_one_of_the_last_step(
    tmp_path: Path, folder: Path, batch: int
) -> None:
    path = tmp_path / "between.ckpt"
    whole, resumed = (Distillation(BASE, depth=2) for _ in range(2))
    save = At(batch, lambda trainer: trainer.save_checkpoint(path))
    _trainer(tmp_path, 4, save, accumulate=3).fit(whole, _data(folder))
    kept = torch.load(path, weights_only=False)["TrajectoryData"]["batches"]
    assert kept == 3 * ((batch + 1) // 3)
    _trainer(tmp_path, 4, accumulate=3).fit(
        resumed, _data(folder), ckpt_path=path, weights_only=False
    )
    assert _same(whole, resumed)


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_process_asked_to_end_finishes_the_step_saves_and_exits(
    tmp_path: Path, folder: Path, asked: signal.Signals
) -> None:
    # A shell may have started the tests with SIGINT ignored.
    started_with = signal.signal(signal.SIGINT, signal.default_int_handler)
    whole, stopped, resumed = (Distillation(BASE, depth=2) for _ in range(3))
    _trainer(tmp_path, 4, accumulate=2).fit(whole, _data(folder))
    before = signal.getsignal(asked)
    ask = At(2, lambda trainer: os.kill(os.getpid(), asked))  # in the middle of a step
    with pytest.raises(SystemExit) as ended:
        _trainer(tmp_path, 4, ask, SaveAndExit(), accumulate=2).fit(stopped, _data(folder))
    assert ended.value.code == 128 + asked
    assert stopped.trainer.global_step == 2
    assert signal.getsignal(asked) == before
    signal.signal(signal.SIGINT, started_with)
    last = tmp_path / "checkpoints" / "last.ckpt"
    _trainer(tmp_path, 4, accumulate=2).fit(
        resumed, _data(folder), ckpt_path=last, weights_only=False
    )
    assert _same(whole, resumed)


def test_a_process_asked_to_end_in_its_last_step_ends_as_it_would_have(
    tmp_path: Path, folder: Path
) -> None:
    ask = At(2, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
    trainer = _trainer(tmp_path, 3, ask, SaveAndExit())
    trainer.fit(Distillation(BASE, depth=2), _data(folder))
    assert (tmp_path / "sampler" / "model.safetensors").exists()


class Disturb(L.Callback):
    """Sets every global generator to something else before each batch."""

    def on_train_batch_start(self, *_) -> None:
        """See the class."""
        seed = random.SystemRandom().getrandbits(31)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  the global one is what is disturbed
        torch.manual_seed(seed)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_nothing_is_drawn_from_global_generators(
    tmp_path: Path, folder: Path, dropout: float
) -> None:
    found = []
    for callbacks in ((), (Disturb(),)):
        module = Distillation(BASE, depth=2, on_policy=OnPolicy(rate=0.5))
        module.sampler.block.self_attn.attention_dropout = dropout
        _trainer(tmp_path, 3, *callbacks).fit(module, _data(folder))
        found.append(module)
    assert _same(*found)


def test_dropout_does_something(tmp_path: Path, folder: Path) -> None:
    found = []
    for dropout in (0.0, 0.3):
        module = Distillation(BASE, depth=2)
        module.sampler.block.self_attn.attention_dropout = dropout
        _trainer(tmp_path, 1).fit(module, _data(folder))
        found.append(module)
    assert not _same(*found)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """Of two steps."""
    root = tmp_path_factory.mktemp("checkpoint")
    keep = ModelCheckpoint(root, filename="two", every_n_train_steps=2)
    _trainer(root, 2, keep).fit(Distillation(BASE, depth=2), _data(folder))
    return root / "two.ckpt"


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ({"depth_weights": [1.0, 2.0]}, {}, r"depth_weights \[1.0, 1.0\], here \[1.0, 2.0\]"),
        ({"on_policy": OnPolicy()}, {}, "on_policy None, here OnPolicy"),
        ({"optimizer": torch.optim.SGD}, {}, "optimizer AdamW, here SGD"),
        ({}, {"batch_size": 8}, "stream of batches: batch_size 4, here 8"),
        ({}, {"seed": 3}, "seed 0, here 3"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused_by_what_differs(
    tmp_path: Path, folder: Path, checkpoint: Path, model: dict, data: dict, message: str
) -> None:
    module = Distillation(BASE, depth=2, **model)
    with pytest.raises(MismatchError, match=message):
        _trainer(tmp_path, 3).fit(
            module, _data(folder, **data), ckpt_path=checkpoint, weights_only=False
        )


def test_a_checkpoint_of_another_base_is_refused(
    tmp_path: Path, folder: Path, checkpoint: Path
) -> None:
    other = load_base(BASE)
    with torch.no_grad():
        other.network.model.norm.weight.mul_(2)
    other.network.save_pretrained(tmp_path / "base")
    for name in ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_bytes((GOLDEN / "dream" / name).read_bytes())
    module = Distillation(str(tmp_path / "base"), depth=2)
    module.trainer = _trainer(tmp_path, 3)
    saved = torch.load(checkpoint, weights_only=False)
    with pytest.raises(MismatchError, match=r"another base or recipe: base .*dream \(weights"):
        module.on_load_checkpoint(saved)


def test_a_run_that_had_reached_its_end_exports_when_resumed(
    tmp_path: Path, folder: Path, checkpoint: Path
) -> None:
    module = Distillation(BASE, depth=2, export=tmp_path / "sampler")
    _trainer(tmp_path, 2).fit(module, _data(folder), ckpt_path=checkpoint, weights_only=False)
    saved = torch.load(checkpoint, weights_only=False)["state_dict"]
    exported = load_file(tmp_path / "sampler" / "model.safetensors")
    assert {f"sampler.{name}" for name in exported} == set(saved)
    assert all(torch.equal(saved[f"sampler.{n}"], weight) for n, weight in exported.items())


def test_the_command_refuses_a_checkpoint_of_another_recipe_in_one_line(
    tmp_path: Path, folder: Path, checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--trainer.accelerator", "cpu", "--trainer.max_steps", "3"]
    arguments += ["--trainer.default_root_dir", str(tmp_path), "--model.base", BASE]
    arguments += ["--model.depth", "1", "--data.path", str(folder), "--data.window", "4"]
    arguments += ["--data.batch_size", "4", "--ckpt_path", str(checkpoint)]
    with pytest.raises(SystemExit) as failure:
        cli.main(arguments)
    assert failure.value.code == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("dlmjoint: error: the checkpoint is of another base or recipe: ")
