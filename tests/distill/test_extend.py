"""A fit that goes on from a checkpoint is trained with what its config says now."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LinearLR, OneCycleLR, SequentialLR, StepLR

from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.optim import MuonAdamW
from dlmjoint.distill.start import Random
from dlmjoint.errors import ConfigError, MismatchError
from tests.distill.trainer import BASE, small_trainer

END = 4
"""Steps of the run that is extended; its rate falls to 0 there."""
ended = partial(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=END)
longer = partial(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=2 * END)


class Groups(L.Callback):
    """The optimizer's settings in every step."""

    def __init__(self) -> None:
        self.seen: list[list[dict[str, Any]]] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module, optimizer) -> None:
        """See the class."""
        kept = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        self.seen.append(kept)


def _data(folder: Path) -> TrajectoryData:
    return TrajectoryData(folder, batch_size=4, window=4, val_batches=1)


def _fit(
    root: Path,
    folder: Path,
    steps: int,
    checkpoint: Path | None = None,
    trainer: dict[str, Any] | None = None,
    **model: Any,
) -> Groups:
    """Fit to `steps`, keeping a checkpoint of the last one."""
    groups, settings = Groups(), {"inference_mode": False, "val_check_interval": 100}
    keep = ModelCheckpoint(root, filename=f"{steps}", every_n_train_steps=steps)
    chosen = settings | (trainer or {})
    fitting = small_trainer(root, steps, keep, groups, **chosen)
    module = Distillation(BASE, depth=1, export=root / f"sampler-{steps}", **model)
    fitting.fit(module, _data(folder), ckpt_path=checkpoint, weights_only=False)
    return groups


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """The last checkpoint of a run whose rate ended at 0."""
    root = tmp_path_factory.mktemp("finished")
    _fit(root, folder, END, scheduler=ended)
    return root / f"{END}.ckpt"


def _cycle(optimizer: Optimizer) -> OneCycleLR:
    return OneCycleLR(optimizer, max_lr=1e-2, total_steps=3 * END)


def _chain(optimizer: Optimizer) -> SequentialLR:
    parts = [ConstantLR(optimizer, 0.5, 2), LinearLR(optimizer, 1.0, 0.2, 8)]
    return SequentialLR(optimizer, parts, milestones=[3])


def _muon(parameters: Any) -> MuonAdamW:
    return MuonAdamW(parameters, lr=2e-3, muon_lr=1e-2, weight_decay=0.1)


def _adam(parameters: Any) -> AdamW:
    return AdamW(parameters, lr=2e-3, betas=(0.8, 0.9), weight_decay=0.1, eps=1e-6)


@pytest.mark.parametrize(
    "now",
    [
        {"scheduler": longer},
        {"scheduler": None},
        {"scheduler": _cycle},
        {"scheduler": _chain},
        {"scheduler": longer, "optimizer": _adam},
        {"optimizer": _adam},
    ],
    ids=["longer", "none", "cycle", "chain", "adam and longer", "adam"],
)
def test_an_extended_run_has_the_settings_of_a_run_that_had_them_from_the_start(
    tmp_path: Path, folder: Path, finished: Path, now: dict[str, Any]
) -> None:
    extended = _fit(tmp_path / "extended", folder, 2 * END, finished, **now)
    whole = _fit(tmp_path / "whole", folder, 2 * END, **now)
    assert extended.seen == whole.seen[END:]
    assert len(extended.seen) == END


def test_both_optimizers_of_muon_follow_the_config(tmp_path: Path, folder: Path) -> None:
    _fit(tmp_path, folder, END, optimizer=MuonAdamW, scheduler=ended)
    before = tmp_path / f"{END}.ckpt"
    extended = _fit(tmp_path, folder, 2 * END, before, optimizer=_muon, scheduler=longer)
    whole = _fit(tmp_path / "whole", folder, 2 * END, optimizer=_muon, scheduler=longer)
    assert extended.seen == whole.seen[END:]


def test_a_run_extended_with_its_schedule_goes_on_learning_and_says_what_is_new(
    tmp_path: Path, folder: Path, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        trainer = {"gradient_clip_val": 1.0}
        _fit(tmp_path, folder, 2 * END, finished, trainer, scheduler=longer)
    before, after = (torch.load(p)["state_dict"] for p in (finished, tmp_path / f"{2 * END}.ckpt"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    (line,) = [r.getMessage() for r in caplog.records if "by the config" in r.getMessage()]
    assert line.startswith(f"going on from step {END} by the config as it is now: ")
    assert "lr 0.0, now 0.0005" in line
    assert f"total_iters {END}, now {2 * END}" in line
    assert "gradient_clip_val None, now 1.0" in line
    assert f"max_steps {END}, now {2 * END}" in line


def test_a_run_that_goes_on_as_it_was_says_nothing(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == 2

    keep = ModelCheckpoint(tmp_path, filename="two", every_n_train_steps=2)
    trainer = small_trainer(tmp_path, END, keep, Stop(), inference_mode=False)
    trainer.fit(Distillation(BASE, depth=1, scheduler=ended), _data(folder))
    with caplog.at_level(logging.INFO):
        _fit(tmp_path, folder, END, tmp_path / "two.ckpt", scheduler=ended)
    assert not [r for r in caplog.records if "by the config" in r.getMessage()]


@pytest.mark.parametrize("scheduler", [ended, partial(StepLR, step_size=1, gamma=0.0)])
def test_a_run_extended_behind_the_end_of_its_schedule_is_refused(
    tmp_path: Path, folder: Path, finished: Path, scheduler: Callable[..., Any]
) -> None:
    with pytest.raises(ConfigError, match=f"the rate is 0 in every step from {END} to {2 * END}"):
        _fit(tmp_path, folder, 2 * END, finished, scheduler=scheduler)


def test_what_an_optimizer_keeps_in_its_groups_is_not_taken_for_a_setting(
    tmp_path: Path, folder: Path
) -> None:
    class Counting(SGD):
        """Counts its steps where Prodigy and schedule-free optimizers keep what they learn."""

        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=1e-3)
            for group in self.param_groups:
                group["steps"] = 0

        def step(self, closure: Any = None) -> Any:
            done = super().step(closure)
            for group in self.param_groups:
                group["steps"] += 1
            return done

    _fit(tmp_path, folder, END, optimizer=Counting)
    extended = _fit(tmp_path, folder, 2 * END, tmp_path / f"{END}.ckpt", optimizer=Counting)
    assert [groups[0]["steps"] for groups in extended.seen] == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("model", "trainer", "message"),
    [
        ({"start": Random()}, {}, r"start LastBlock\(.*\), here Random\("),
        ({}, {"accumulate_grad_batches": 2}, "accumulate_grad_batches 1, here 2"),
    ],
)
def test_what_cannot_change_between_two_steps_is_refused(
    tmp_path: Path, folder: Path, finished: Path, model: dict, trainer: dict, message: str
) -> None:
    with pytest.raises(MismatchError, match=message):
        _fit(tmp_path, folder, 2 * END, finished, trainer, scheduler=longer, **model)
