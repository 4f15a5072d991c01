"""Which checkpoint a fit goes on from: what was saved is found, or the run is refused."""

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
import yaml

from dlmjoint import cli
from dlmjoint.distill.running.checkpoints import newest
from dlmjoint.distill.running.interrupt import EXIT_STATUS
from dlmjoint.errors import ConfigError, LoadError
from tests.distill.trainer import BASE


class AskToEnd(L.Callback):
    """Asks its own process to end in some step, as a scheduler does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """See the class."""
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


class Began(L.Callback):
    """Notes the step a fit begins at."""

    steps: ClassVar[list[int]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See the class."""
        self.steps.append(trainer.global_step)


class Fit:
    """The command on a folder of its own."""

    def __init__(self, root: Path, data: Path) -> None:
        self.root, self.config = root, root / "fit.yaml"
        trainer = {
            "accelerator": "cpu",
            "max_steps": 6,
            "val_check_interval": 100,
            "enable_progress_bar": False,
            "default_root_dir": str(root),
        }
        self.settings: dict[str, Any] = {
            "trainer": trainer,
            "model": {"base": BASE, "depth": 1},
            "data": {"path": str(data), "batch_size": 4, "window": 4, "val_batches": 1},
        }

    def __call__(self, *arguments: str, verb: str = "fit", **trainer: Any) -> list[int]:
        """The steps at which training began."""
        Began.steps.clear()
        callbacks = [{"class_path": f"{__name__}.Began"}, *trainer.pop("callbacks", [])]
        settings = {**self.settings["trainer"], "callbacks": callbacks, **trainer}
        self.config.write_text(yaml.safe_dump(self.settings | {"trainer": settings}))
        cli.main([verb, "--config", str(self.config), *arguments])
        return list(Began.steps)

    def ended(self, at: int, **trainer: Any) -> None:
        """Begin, and be asked to end after some steps."""
        ask = {"class_path": f"{__name__}.AskToEnd", "init_args": {"step": at}}
        with pytest.raises(SystemExit) as ending:
            self(**{**trainer, "callbacks": [*trainer.get("callbacks", []), ask]})
        assert ending.value.code == EXIT_STATUS


@pytest.fixture
def fit(tmp_path: Path, folder: Path) -> Fit:
    """A fit of six steps."""
    return Fit(tmp_path, folder)


KEEPING = [
    {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": init_args}
    for init_args in ({"every_n_train_steps": 2}, {"every_n_train_steps": 2, "dirpath": "kept"})
]


def test_what_sigterm_saved_is_found_where_checkpointing_is_off(fit: Fit) -> None:
    fit.ended(at=3, enable_checkpointing=False)
    assert fit("--ckpt_path", "last", enable_checkpointing=False) == [3]


@pytest.mark.parametrize("keep", KEEPING, ids=["in its folder", "elsewhere"])
def test_checkpoints_are_found_though_none_is_called_last(
    fit: Fit, keep: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fit.root)
    fit(callbacks=[keep], max_steps=4)
    assert not list(fit.root.rglob("last*.ckpt"))
    assert fit("--ckpt_path", "last", callbacks=[keep]) == [4]


def test_without_a_checkpoint_a_fit_begins_and_a_validation_is_refused(
    fit: Fit, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as failure:
        fit("--ckpt_path", "last", verb="validate")
    assert failure.value.code == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("dlmjoint: error: there is no checkpoint in ")
    assert fit("--ckpt_path", "last", max_steps=1) == [0]


@pytest.mark.parametrize("word", ["best", "hpc"])
def test_words_that_mean_nothing_to_a_new_process_are_refused(
    fit: Fit, capfd: pytest.CaptureFixture[str], word: str
) -> None:
    with pytest.raises(SystemExit) as failure:
        fit("--ckpt_path", word)
    assert failure.value.code == 2
    assert "give a file, or `last`" in capfd.readouterr().err.strip().splitlines()[-1]


def _save(folder: Path, name: str, step: int, at: float) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save({"global_step": step}, folder / name)
    os.utime(folder / name, (at, at))
    return folder / name


def test_the_newest_checkpoint_is_the_one_of_most_steps(tmp_path: Path) -> None:
    _save(tmp_path / "a", "step=9.ckpt", 9, at=100)
    last = _save(tmp_path / "b", "step=10.ckpt", 10, at=101)
    assert newest([tmp_path / "a", tmp_path / "b", tmp_path / "none"]) == last
    assert newest([tmp_path / "none"]) is None


def test_a_later_run_that_is_less_far_makes_the_newest_one_uncertain(tmp_path: Path) -> None:
    far = _save(tmp_path, "step=100.ckpt", 100, at=100)
    later = _save(tmp_path, "last.ckpt", 30, at=200)
    with pytest.raises(ConfigError, match="--ckpt_path") as refused:
        newest([tmp_path])
    assert f"{far} is of step 100" in str(refused.value)
    assert f"{later} of step 30 was written later" in str(refused.value)


def test_a_cut_off_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = _save(tmp_path, "step=10.ckpt", 10, at=100)
    (tmp_path / "last.ckpt").write_bytes(whole.read_bytes()[:-100])
    assert newest([tmp_path]) == whole
    assert "last.ckpt" in caplog.text
    whole.unlink()
    with pytest.raises(LoadError, match="no checkpoint is whole"):
        newest([tmp_path])
