"""A finished sampler is never replaced by one that is less trained."""

import json
import logging
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import Timer

from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.module import Distillation
from dlmjoint.errors import ConfigError
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from tests.distill.trainer import BASE, small_trainer

STEPS = 3


def _fit(root: Path, folder: Path, steps: int, *callbacks: L.Callback, **settings: Any) -> None:
    """Fit and export to `root / "sampler"`; `overwrite` is the module's, the rest the trainer's."""
    model = {"overwrite": settings.pop("overwrite")} if "overwrite" in settings else {}
    module = Distillation(BASE, depth=1, **model)
    data = TrajectoryData(folder, batch_size=4, window=4, val_batches=1)
    settings = {"inference_mode": False} | settings
    small_trainer(root, steps, *callbacks, **settings).fit(module, data)


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _steps(folder: Path) -> int:
    return json.loads((folder / "metrics.json").read_text())["step"]


@pytest.fixture
def finished(tmp_path: Path, folder: Path) -> Path:
    """A sampler of three steps."""
    _fit(tmp_path, folder, STEPS)
    return tmp_path / "sampler"


def test_a_trial_exports_nothing(tmp_path: Path, folder: Path, finished: Path) -> None:
    before = _content(finished)
    _fit(tmp_path, folder, 10, fast_dev_run=True)
    assert _content(finished) == before
    _fit(tmp_path / "new", folder, 10, fast_dev_run=2)
    assert not (tmp_path / "new" / "sampler").exists()


@pytest.mark.parametrize("settings", [{"limit_train_batches": 0}, {}])
def test_a_run_of_no_steps_is_refused(
    tmp_path: Path, folder: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="nothing was trained"):
        _fit(tmp_path, folder, 3 if settings else 0, **settings)
    assert not (tmp_path / "sampler").exists()


def test_a_run_of_fewer_steps_than_what_lies_there_is_refused_without_a_flag(
    tmp_path: Path, folder: Path, finished: Path
) -> None:
    before = _content(finished)
    message = rf"{finished} holds a sampler of 3 steps, and this run has 2.*model\.overwrite true"
    with pytest.raises(ConfigError, match=message):
        _fit(tmp_path, folder, STEPS - 1)
    assert _content(finished) == before
    _fit(tmp_path, folder, STEPS - 1, overwrite=True)
    assert _steps(finished) == STEPS - 1


def test_a_run_of_as_many_steps_or_more_replaces_it(
    tmp_path: Path, folder: Path, finished: Path
) -> None:
    for steps in (STEPS, STEPS + 1):
        _fit(tmp_path, folder, steps)
        assert _steps(finished) == steps


def test_a_sampler_of_unknown_training_is_not_replaced(tmp_path: Path, folder: Path) -> None:
    JointSampler.from_base(load_base(BASE)).save_pretrained(tmp_path / "sampler")
    with pytest.raises(ConfigError, match="holds a sampler of unknown steps"):
        _fit(tmp_path, folder, STEPS)


class Stop(L.Callback):
    """Ends a fit after its first step."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """See the class."""
        trainer.should_stop = True


@pytest.mark.parametrize("steps", [10, -1])
def test_a_run_that_ends_early_exports_beside_what_is_more_trained(
    tmp_path: Path, folder: Path, finished: Path, steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = _content(finished)
    with caplog.at_level(logging.WARNING):
        _fit(tmp_path, folder, steps, Stop(), Timer(duration={"hours": 1}))
    assert _content(finished) == before
    assert _steps(tmp_path / "sampler-1-steps") == 1
    assert f"{finished} holds a sampler of 3 steps, and this run has 1" in caplog.text
