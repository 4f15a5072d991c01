"""Ctrl-C ends a command with one line that says what is kept and how to go on."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dlmjoint import __main__, cli
from dlmjoint.evaluation.running import run as running
from dlmjoint.verbs import VERBS
from tests.conftest import CHECKPOINTS

BASE = str(CHECKPOINTS / "tiny-dream")
SAMPLER = str(CHECKPOINTS / "tiny-joint")
TASK = """
- class_path: dlmjoint.evaluation.tasks.word_problems.WordProblems
  init_args: {n: 3, max_new_tokens: 2}
"""


@pytest.fixture(autouse=True)
def _in_front() -> Iterator[None]:
    """A shell may have started the tests with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _interrupt(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError("the signal was not heard")


def _said(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The last line of a command that Ctrl-C ended."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 128 + signal.SIGINT
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.count("asked to end") == 1
    return said.strip().splitlines()[-1]


def test_an_evaluation_says_where_it_goes_on_and_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config, run_dir = tmp_path / "eval.yaml", tmp_path / "run"
    config.write_text(
        f"base: {BASE}\nrun_dir: {run_dir}\nbatch_size: 1\ndecoders: {{k2: {{commits_per_forward: 2}}}}\n"
        f"tasks:{TASK}"
    )
    real, rows = running.decode_batch, list[int]()

    def counted(base, canvas, policy, noise):
        rows.append(len(canvas.tokens))
        return _interrupt() if len(rows) == 2 else real(base, canvas, policy, noise)

    monkeypatch.setattr(running, "decode_batch", counted)
    line = _said(capfd, ["eval", "--config", str(config)])
    assert line == (
        f"dlmjoint: asked to end: what was decoded stays in {run_dir}; the same command goes on from there"
    )
    cli.main(["eval", "--config", str(config)])
    assert (run_dir / "scores.json").exists()
    assert len(rows) == 4, "three texts, one of them begun twice"


OTHERS: dict[str, tuple[str, list[str], str]] = {
    "generate": (
        "dlmjoint.trajectories.generate.load_base",
        ["--base", BASE, "--output", "OUT", "--prompts", "Unconditional", "--prompts.n", "1"],
        "finished shards stay in OUT; the same command goes on from there",
    ),
    "score": (
        "dlmjoint.evaluation.commands.score_run",
        ["--run_dir", "OUT"],
        "the generations in OUT stay as they are; the same command scores them",
    ),
    "compare": ("dlmjoint.evaluation.commands.compare_runs", ["--runs", "[OUT]"], ""),
    "calibrate": (
        "dlmjoint.evaluation.commands.load_any_base",
        ["--base", BASE, "--trajectories", "OUT"],
        "",
    ),
    "sample": ("dlmjoint.show.command.load_any_base", ["--base", BASE], ""),
    "convert": (
        "dlmjoint.convert.read_checkpoint",
        ["--checkpoint", "x.ckpt", "--base", BASE, "--output", "OUT"],
        "",
    ),
    "publish": (
        "dlmjoint.publish.command.stage_sampler",
        [SAMPLER, "someone/joint", "--dry_run", "OUT"],
        "",
    ),
    "bench": (
        "dlmjoint.bench.command.find_suite",
        ["--output", "OUT"],
        "points measured so far stay in OUT; the same command begins anew",
    ),
    "info": ("dlmjoint.costs.info.ModelFiles.find", [BASE], ""),
    "lm-eval": (
        "dlmjoint.evaluation.lm_eval.model.command",
        ["run"],
        "answers stay where --use_cache says, and the same command goes on from there",
    ),
}
"""Where a command is interrupted, its arguments, and what it says."""


@pytest.mark.parametrize("command", OTHERS)
def test_every_command_says_what_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
) -> None:
    where, arguments, told = OTHERS[command]
    out = str(tmp_path / "out")
    monkeypatch.setattr(where, _interrupt)
    line = _said(capfd, [command, *(given.replace("OUT", out) for given in arguments)])
    told = told or "what it has written is there whole; the same command begins anew"
    assert line == f"dlmjoint: asked to end: {told.replace('OUT', out)}"
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.parametrize("number", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_of_processes_started_together_the_first_one_says_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: str
) -> None:
    monkeypatch.setattr("dlmjoint.costs.info.ModelFiles.find", _interrupt)
    monkeypatch.setenv(number, "0")
    assert _said(capfd, ["info", BASE]).startswith("dlmjoint: asked to end")
    monkeypatch.setenv(number, "1")
    with pytest.raises(SystemExit) as ended:
        cli.main(["info", BASE])
    assert ended.value.code == 128 + signal.SIGINT
    assert capfd.readouterr().err == ""


def test_every_command_is_in_this_list() -> None:
    assert {*OTHERS, "eval", "fit", "validate", "completion"} == set(VERBS)


def test_ctrl_c_before_a_command_has_begun_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    importing = ModuleType("dlmjoint.cli")
    importing.main = _interrupt  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "dlmjoint.cli", importing)
    monkeypatch.setattr(sys, "argv", ["dlmjoint", "eval"])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 130
    assert capfd.readouterr().err == "dlmjoint: asked to end before anything was begun\n"
