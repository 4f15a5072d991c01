"""The commands: configs parse, mistakes end in one line and a non-zero status, nothing is lost."""

import io
import logging
import sys
from pathlib import Path

import pytest

from dlmjoint import cli
from dlmjoint.disk.provenance import provenance
from tests.conftest import GOLDEN

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
BASE = str(GOLDEN / "dream")


def _fails(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr of a command that must fail."""
    with pytest.raises(SystemExit) as failure:
        cli.main(arguments)
    assert failure.value.code not in (0, None)
    return capfd.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_parses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    verb = path.relative_to(ROOT / "configs").parts[0]
    if verb == "fit":
        with pytest.raises(SystemExit) as done:
            cli.main(["fit", "--config", str(path), "--print_config"])
        assert done.value.code == 0
    else:
        assert cli.parser_of(cli.COMMANDS[verb]).parse_args(["--config", str(path)])


@pytest.mark.parametrize("verb", [*cli.COMMANDS, "fit", "validate"])
def test_every_command_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main([verb, "--help"])
    assert done.value.code == 0
    assert "--config" in capsys.readouterr().out


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_help_says_what_a_command_does_and_then_lists_its_settings_once(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    before, _, _ = capsys.readouterr().out.partition("options:")
    assert cli.COMMANDS.summary(verb).split()[0] in before
    assert "Args:" not in before


def test_what_the_hubs_client_says_in_its_own_words_is_not_said_again_in_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs, heard = logging.getLogger("huggingface_hub"), io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(heard)])
    monkeypatch.setattr(theirs, "propagate", True)
    assert theirs.handlers, "it has its own"
    theirs.getChild("utils").warning("Retrying in 1s")
    assert heard.getvalue() == "Retrying in 1s\n"
    cli._logging()
    theirs.getChild("utils").warning("Retrying in 2s")
    assert heard.getvalue() == "Retrying in 1s\n"


def test_an_unknown_verb_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert "frobnicate" in _fails(["frobnicate"], capfd)


def test_an_unknown_key_in_a_config_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(f"base: {BASE}\nmax_new_tokans: 3\n")
    assert "max_new_tokans" in _fails(["generate", "--config", str(tmp_path / "c.yaml")], capfd)


def test_an_unknown_key_of_the_model_section_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(f"model: {{base: {BASE}, dept: 3}}\n")
    assert "dept" in _fails(["fit", "--config", str(tmp_path / "c.yaml")], capfd)


def _generate(output: Path, *more: str) -> list[str]:
    start = ["generate", "--base", BASE, "--output", str(output), "--device", "cpu"]
    prompts = ["--prompts", "dlmjoint.trajectories.prompts.Unconditional", "--prompts.n", "4"]
    return [*start, *prompts, "--max_new_tokens", "4", "--shard_size", "2", *more]


def test_a_missing_base_ends_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = _fails(_generate(tmp_path / "out", "--base", "no/where"), capfd)
    assert line.startswith("dlmjoint: error: no/where is neither a folder nor")


def test_an_empty_prompt_file_ends_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.txt").touch()
    prompts = ["--prompts", "dlmjoint.trajectories.prompts.PromptFile"]
    arguments = ["generate", "--base", BASE, "--output", str(tmp_path / "out"), *prompts]
    line = _fails([*arguments, "--prompts.path", str(tmp_path / "p.txt"), "--device", "cpu"], capfd)
    assert line == f"dlmjoint: error: {tmp_path}/p.txt holds no prompts"


def test_the_resolved_settings_are_saved_and_run_again(tmp_path: Path) -> None:
    cli.main(_generate(tmp_path / "out"))
    saved = tmp_path / "out" / "config.yaml"
    shard = tmp_path / "out" / "shard-00000.parquet"
    before = shard.read_bytes()
    shard.unlink()
    cli.main(["generate", "--config", str(saved)])
    assert shard.read_bytes() == before


def test_what_makes_nothing_new_leaves_the_settings_of_a_finished_run(tmp_path: Path) -> None:
    def made(output: Path, dry_run: bool = False) -> None:
        """A command."""

    def score(run_dir: Path) -> None:
        """Another one."""

    cli.run(made, ["--output", str(tmp_path)])
    before = (tmp_path / "config.yaml").read_text()
    cli.run(made, ["--output", str(tmp_path), "--dry_run", "true"])
    cli.run(score, ["--run_dir", str(tmp_path)])
    assert (tmp_path / "config.yaml").read_text() == before


def _fit(root: Path, *more: str) -> list[str]:
    trainer = ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(root)]
    return [
        "fit", *trainer, "--trainer.max_steps", "2", "--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false",
        "--model.base", BASE, "--model.depth", "1", "--data.batch_size", "2",
        "--data.window", "2", "--data.val_batches", "1", *more,
    ]  # fmt: skip


def test_fit_logs_to_csv_and_tensorboard_and_exports_the_sampler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.main(_generate(tmp_path / "data"))
    monkeypatch.setattr(
        sys, "argv", ["lightning", *_fit(tmp_path / "fit", "--data.path", str(tmp_path / "data"))]
    )
    cli.lightning()
    assert list((tmp_path / "fit").rglob("metrics.csv"))
    assert list((tmp_path / "fit").rglob("events.out.tfevents*"))
    assert (tmp_path / "fit" / "sampler" / "model.safetensors").exists()


def test_fit_on_a_folder_without_trajectories_ends_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = _fails(_fit(tmp_path / "fit", "--data.path", str(tmp_path)), capfd)
    assert line.startswith("dlmjoint: error:")
    assert "no folder of trajectories" in line


def test_fit_without_an_end_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cli.main(_generate(tmp_path / "data"))
    arguments = _fit(tmp_path / "fit", "--data.path", str(tmp_path / "data"))
    assert "max_steps" in _fails([*arguments, "--trainer.max_steps", "-1"], capfd)


def test_the_lightning_command_names_its_limits_for_other_verbs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning", "run"])
    monkeypatch.setitem(sys.modules, "lightning_sdk.cli.entrypoint", None)
    with pytest.raises(SystemExit):
        cli.lightning()
    assert "lightning-sdk" in capfd.readouterr().err


@pytest.mark.parametrize("content", [None, b"PK half a checkpoint"])
def test_a_missing_or_damaged_checkpoint_ends_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "last.ckpt"
    if content is not None:
        path.write_bytes(content)
    arguments = _fit(tmp_path / "fit", "--data.path", str(tmp_path), "--ckpt_path", str(path))
    line = _fails(arguments, capfd)
    assert line.startswith("dlmjoint: error:")
    assert str(path) in line


def test_a_sampler_of_another_base_ends_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from dlmjoint.models.dream import Dream
    from dlmjoint.models.joint import JointSampler

    JointSampler.from_base(Dream.random()).save_pretrained(tmp_path / "sampler")
    existing = "--model.start=dlmjoint.distill.start.Existing"
    sampler = f"--model.start.sampler={tmp_path / 'sampler'}"
    more = ["--data.path", str(tmp_path), existing, sampler]
    line = _fails(_fit(tmp_path / "fit", *more), capfd)
    assert "the sampler belongs to random Dream 0" in line


@pytest.mark.parametrize(
    ("program", "called"), [("bin/dlmjoint", "dlmjoint"), ("lib/dlmjoint/__main__.py", "dlmjoint")]
)
def test_provenance_names_the_command_as_its_user_calls_it(
    program: str, called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [program, "fit", "--config", "fit.yaml"])
    assert provenance({})["command"] == f"{called} fit --config fit.yaml"
