"""Files are there whole or not at all; what a killed process was writing goes with the next start."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
from transformers import PreTrainedModel

from dlmjoint import cli
from dlmjoint.disk.atomic import FOREIGN, sweep, whole, whole_files
from dlmjoint.disk.provenance import write_json
from dlmjoint.distill.module import Distillation
from dlmjoint.evaluation.kept import kept
from dlmjoint.models.dream import Dream
from dlmjoint.pretrain.objective import MaskedDiffusion
from dlmjoint.pretrain.train import HISTORY, History, Pretraining, Schedule
from dlmjoint.publish.command import staged
from dlmjoint.training import TrainCLI
from tests.conftest import GOLDEN
from tests.distill.processes import CONTEXT, PATIENCE

BASE = str(GOLDEN / "dream")


def _write_and_wait(path: Path) -> None:
    with whole(path) as temporary:
        temporary.write_text("half")
        path.with_name("begun").touch()
        time.sleep(PATIENCE)


def _killed_while_writing(path: Path) -> Path:
    """What a killed process leaves of a file."""
    process = CONTEXT.Process(target=_write_and_wait, args=(path,))
    process.start()
    begun = path.with_name("begun")
    end = time.monotonic() + PATIENCE
    while not begun.exists():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
    (left,) = path.parent.glob(f".{path.name}.*.partial")
    sweep(path.parent)
    assert left.exists(), "its writer is alive"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    begun.unlink()
    assert left.exists()
    return left


def test_a_killed_writers_file_goes_with_the_next_start_and_the_old_one_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a" / "x.json"
    write_json(path, 1)
    left = _killed_while_writing(path)
    other = path.with_name(".y.partial")
    other.touch()  # not of ours
    sweep(tmp_path)
    assert not left.exists()
    assert other.exists()
    assert path.read_text() == "1\n"


WRITERS: dict[str, Callable[[Path], object]] = {
    "json": lambda folder: write_json(folder / "x", 1),
    "array": lambda folder: kept(folder, "x", "of", lambda: np.zeros(2)),
    "folder": lambda folder: _export(folder / "x"),
}


def _export(folder: Path) -> None:
    with whole_files(folder) as temporary:
        (temporary / "one").touch()


@pytest.mark.parametrize("kind", WRITERS)
def test_the_next_writer_of_a_file_removes_what_a_killed_one_left(
    tmp_path: Path, kind: str
) -> None:
    WRITERS[kind](tmp_path)
    (path,) = tmp_path.iterdir()
    left = _killed_while_writing(path)
    (path.unlink if path.is_file() else lambda: None)()
    WRITERS[kind](tmp_path)
    assert not left.exists()
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "x", 1)
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "x") as temporary:
        temporary.write_text(str(1 / 0))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    with pytest.raises(ZeroDivisionError), whole_files(tmp_path) as temporary:
        (temporary / "x").write_text("2" * int(1 / 0))
    assert (tmp_path / "x").read_text() == "1\n"


def test_another_machines_file_is_left_over_after_a_day(tmp_path: Path) -> None:
    left = tmp_path / f".x.00000000-{os.getpid()}-00000000.partial"
    left.touch()
    sweep(tmp_path)
    assert left.exists()
    long_ago = time.time() - FOREIGN - 60
    os.utime(left, (long_ago, long_ago))
    sweep(tmp_path)
    assert not left.exists()


def test_what_an_earlier_process_of_ones_own_id_left_is_left_over(tmp_path: Path) -> None:
    with whole(tmp_path / "x") as temporary:
        temporary.touch()
        earlier = temporary.with_name(
            temporary.name[: -len("00000000.partial")] + "0" * 8 + ".partial"
        )
        earlier.touch()
        sweep(tmp_path)
        assert temporary.exists()
        assert not earlier.exists()


def test_generate_clears_its_folder_at_its_start(tmp_path: Path) -> None:
    output = tmp_path / "out"
    start = ["generate", "--base", BASE, "--output", str(output), "--device", "cpu"]
    prompts = ["--prompts", "dlmjoint.trajectories.prompts.Unconditional", "--prompts.n", "2"]
    arguments = [*start, *prompts, "--max_new_tokens", "4"]
    cli.main(arguments)
    left = [_killed_while_writing(output / name) for name in ("shard-00000.parquet", "x.json")]
    cli.main(arguments)  # there is nothing to draw
    assert not any(path.exists() for path in left)


def test_a_kill_while_a_base_is_saved_leaves_the_last_good_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Pretraining(
        MaskedDiffusion(Dream.random(), 0.0, 0.0),
        tmp_path,
        Schedule(4, 2, 1e-3, 0),
        History(),
        0,
        "float32",
    )
    module.recent.append(1.0)
    module.save(2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"model.safetensors", "config.json", HISTORY} <= before.keys()

    def killed_half_way(self: PreTrainedModel, folder: Path) -> None:
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", killed_half_way)
    module.recent.append(2.0)
    with pytest.raises(KeyboardInterrupt):
        module.save(4)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert [one.name for one in tmp_path.parent.glob(f".{tmp_path.name}.*")] == []


def test_what_was_left_of_a_folder_goes_with_its_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "sampler"
    folder.mkdir()
    left = _killed_while_writing(folder)
    other = _killed_while_writing(tmp_path / "other")
    sweep(folder)
    assert not left.exists()
    assert other.exists(), "another folder's"


def test_a_fit_clears_its_folders_at_its_start(tmp_path: Path) -> None:
    root, export = tmp_path / "root", tmp_path / "elsewhere" / "sampler"
    left = [_killed_while_writing(root / "sampler"), _killed_while_writing(export)]
    command = object.__new__(TrainCLI)
    command.trainer = L.Trainer(default_root_dir=root, accelerator="cpu", logger=False)
    command.model = Distillation(BASE, depth=2, export=export)
    command.config_init, command.subcommand = {"fit": {}}, "fit"  # pyright: ignore
    command.before_fit()
    assert not any(path.exists() for path in left)


def test_a_dry_run_of_publish_holds_everything_or_nothing_and_clears_what_was_left(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    left = [_killed_while_writing(out), _killed_while_writing(out / "card")]
    with pytest.raises(ZeroDivisionError), staged(out) as temporary:
        (temporary / "half").write_text("2" * int(1 / 0))
    assert not any(path.exists() for path in left)
    assert list(tmp_path.rglob("*")) == [out]
    with staged(out) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").touch()
    assert [path.name for path in out.rglob("*")] == ["inner", "file"]
