"""A checkpoint that holds code ends in one line, and nothing of it is run."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from dlmjoint import cli
from dlmjoint.distill.running.checkpoints import check_harmless
from tests.distill.trainer import BASE
from tests.hostile import Hostile, one_line


def _arguments(root: Path, data: Path, verb: str, checkpoint: str) -> list[str]:
    trainer = {"accelerator": "cpu", "max_steps": "1", "default_root_dir": str(root)}
    trainer |= {"enable_progress_bar": "false", "val_check_interval": "1"}
    given = {f"trainer.{name}": value for name, value in trainer.items()}
    given |= {"model.base": BASE, "model.depth": "1", "data.path": str(data)}
    given |= {"data.batch_size": "4", "data.window": "4", "data.val_batches": "1"}
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    return [verb, *flags, "--ckpt_path", checkpoint]


def _of_torch(made: Path, folder: Path) -> Path:
    path = folder / "last.ckpt"
    torch.save({"global_step": 3, "state_dict": {}, "epoch": Hostile(made)}, path)
    return path


def _of_pickle(made: Path, folder: Path) -> Path:
    path = folder / "last.ckpt"
    path.write_bytes(pickle.dumps(Hostile(made)))
    return path


def _of_deepspeed(made: Path, folder: Path) -> Path:
    path = folder / "last.ckpt"
    (path / "checkpoint").mkdir(parents=True)
    torch.save({"global_step": 3}, path / "checkpoint" / "mp_rank_00_model_states.pt")
    states = path / "checkpoint" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    torch.save({"optimizer_state_dict": Hostile(made)}, states)
    return path


def _shards(folder: Path, state: dict) -> Path:
    path = folder / "last.ckpt"
    save(state, storage_writer=FileSystemWriter(path), no_dist=True)
    torch.save({"global_step": 3}, path / "meta.pt")
    return path


def _of_shards(made: Path, folder: Path) -> Path:
    return _shards(folder, {"weight": torch.ones(2), "rate": Hostile(made)})


def _of_their_index(made: Path, folder: Path) -> Path:
    path = _shards(folder, {"weight": torch.ones(2), "rate": 0.5})
    (path / ".metadata").write_bytes(pickle.dumps(Hostile(made)))
    return path


KINDS = [_of_torch, _of_pickle, _of_deepspeed, _of_shards, _of_their_index]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("verb", ["fit", "validate"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "last"])
def test_a_checkpoint_with_code_in_it_is_refused_in_one_line_and_not_run(
    tmp_path: Path,
    folder: Path,
    make: Callable[[Path, Path], Path],
    verb: str,
    named: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    path = make(tmp_path / "made", kept)
    checkpoint = str(path) if named else "last"
    line = one_line(_arguments(tmp_path, folder, verb, checkpoint), capfd)
    assert str(path) in line
    if make is not _of_pickle:  # which is no torch checkpoint at all
        assert "mkdir" in line
        assert "nothing of it was run" in line
        assert "--weights_only false" in line
    assert not (tmp_path / "made").exists()


def test_shards_without_code_are_what_torch_reads(tmp_path: Path) -> None:
    path = _shards(tmp_path, {"weight": torch.ones(2, 3).t(), "rate": 0.5, "betas": (0.9, None)})
    check_harmless(path)
    assert set(FileSystemReader(path).read_metadata().state_dict_metadata) > {"weight", "rate"}


@pytest.mark.parametrize("content", [{"a": 1}, {"state_dict": {}, "global_step": 2}])
def test_what_is_no_checkpoint_to_train_on_from_is_refused_in_one_line(
    tmp_path: Path, folder: Path, content: dict, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.ckpt"
    torch.save(content, path)
    line = one_line(_arguments(tmp_path, folder, "fit", str(path)), capfd)
    assert str(path) in line


@pytest.fixture
def whole(tmp_path: Path, folder: Path) -> dict[str, Any]:
    """What the checkpoint of a fit holds."""
    cli.main(_arguments(tmp_path / "run", folder, "fit", "last"))
    return torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt")


def test_a_checkpoint_of_weights_alone_is_validated_and_not_trained_on(
    tmp_path: Path, folder: Path, whole: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    del whole["optimizer_states"], whole["lr_schedulers"]
    path = tmp_path / "weights.ckpt"
    torch.save(whole, path)
    line = one_line(_arguments(tmp_path / "other", folder, "fit", str(path)), capfd)
    assert "holds weights alone" in line
    cli.main(_arguments(tmp_path / "other", folder, "validate", str(path)))


def test_whoever_trusts_a_checkpoint_may_say_so(
    tmp_path: Path, folder: Path, whole: dict[str, Any]
) -> None:
    path = tmp_path / "strange.ckpt"
    torch.save(whole | {"more": Hostile(tmp_path / "made")}, path)
    arguments = _arguments(tmp_path / "other", folder, "validate", str(path))
    cli.main([*arguments, "--weights_only", "false"])
    assert (tmp_path / "made").exists()
