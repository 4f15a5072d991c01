"""What was measured last is exported with the sampler, whenever the run was interrupted."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.module import Distillation
from tests.distill.trainer import BASE, small_trainer

STEPS = 6


class Validations(L.Callback):
    """Notes the steps that are validated."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See the class."""
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)


def _fit(
    root: Path, folder: Path, every: int, checkpoint: Path | None = None, steps: int = STEPS
) -> tuple[dict[str, float], list[int]]:
    """Fit, keeping a checkpoint of the last step, written before a validation in it; what the
    exported folder says was measured, and the steps that were validated."""
    validations = Validations()
    keep = ModelCheckpoint(root, filename=f"{steps}", every_n_train_steps=steps)
    settings: dict[str, Any] = {"val_check_interval": every, "inference_mode": False}
    trainer = small_trainer(root, steps, keep, validations, **settings)
    module = Distillation(BASE, depth=1, export=root / f"sampler-{steps}")
    data = TrajectoryData(folder, batch_size=4, window=4, val_batches=1)
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False)
    measured = json.loads((root / f"sampler-{steps}" / "metrics.json").read_text())
    return measured, validations.steps


@pytest.mark.parametrize("every", [4, 2])
def test_a_resumed_run_exports_the_numbers_of_the_run_it_continues(
    tmp_path: Path, folder: Path, every: int
) -> None:
    whole, validated = _fit(tmp_path / "whole", folder, every)
    assert validated == list(range(every, STEPS + 1, every))
    assert {"step", "train/loss", "val/kl@1", "val/marginal_kl@1", "val/top1@1"} <= set(whole)
    assert not any(math.isnan(value) for value in whole.values())
    for step in range(2, STEPS + 1):
        _fit(tmp_path, folder, every, steps=step)
        resumed, again = _fit(tmp_path / f"from-{step}", folder, every, tmp_path / f"{step}.ckpt")
        assert resumed == whole, step
        if step < STEPS:
            assert again == [n for n in validated if n >= step], "the checkpoint came before it"
