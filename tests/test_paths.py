"""Paths in settings: `~` is the home wherever it stands, and null is the default."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dlmjoint import cli
from dlmjoint.evaluation.lm_eval.settings import read
from dlmjoint.evaluation.tasks.kinds.source import Place
from tests.conftest import GOLDEN

BASE = str(GOLDEN / "dream")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, which is not where the command runs."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    (home / "dream").symlink_to(GOLDEN / "dream")
    return home


@dataclass(frozen=True)
class Part:
    """With a path inside."""

    folder: Path | str


def _config(home: Path, settings: dict[str, Any]) -> Path:
    path = home / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_commands_paths_are_the_homes_wherever_they_stand(home: Path) -> None:
    found: dict[str, Any] = {}

    def command(
        base: str,
        output: Path,
        part: Part,
        parts: list[Part],
        named: dict[str, Path],
        text: str,
    ) -> None:
        """See what arrives."""
        output.mkdir()
        found.update(locals())

    settings = {
        "base": "~/dream",
        "output": "~/out",
        "part": {"folder": "~/one"},
        "parts": [{"folder": "~/two"}],
        "named": {"a": "~"},
        "text": "~3 minutes, in ~/somewhere",
    }
    cli.run(command, ["--config", str(_config(home, settings))])
    assert found["base"] == str(home / "dream")
    assert found["output"] == home / "out"
    assert str(found["part"].folder) == str(home / "one")
    assert str(found["parts"][0].folder) == str(home / "two")
    assert found["named"] == {"a": home}
    assert found["text"] == settings["text"]
    assert "~/dream" not in (home / "out" / "config.yaml").read_text()


def _generate(home: Path) -> None:
    prompts = {
        "class_path": "dlmjoint.trajectories.prompts.PromptFile",
        "init_args": {"path": "~/prompts.txt"},
    }
    (home / "prompts.txt").write_text("Hello\n" * 24)
    settings = {"base": "~/dream", "output": "~/data", "prompts": prompts, "device": "cpu"}
    _config(home, {**settings, "max_new_tokens": 6})
    cli.main(["generate", "--config=~/config.yaml"])


def _fit(home: Path, root: str | None) -> None:
    trainer = {"accelerator": "cpu", "max_steps": 2, "val_check_interval": 2}
    trainer |= {"enable_progress_bar": False, "default_root_dir": root}
    data = {"path": "~/data", "batch_size": 2, "window": 2, "val_batches": 1}
    settings = {"trainer": trainer, "model": {"base": "~/dream", "depth": 1}, "data": data}
    _config(home, settings)
    cli.main(["fit", "--config=~/config.yaml"])


def _made(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def data(home: Path) -> None:
    """Trajectories in the home."""
    _generate(home)


@pytest.mark.usefixtures("data")
def test_all_that_a_fit_writes_is_in_one_folder_of_the_home(home: Path) -> None:
    assert (home / "data" / "shard-00000.parquet").exists()
    _fit(home, "~/runs/x")
    assert _made(home / "runs" / "x") == {"checkpoints", "logs", "sampler"}
    assert not _made(Path.cwd())


@pytest.mark.usefixtures("data")
def test_a_root_of_null_is_the_default_one(home: Path) -> None:
    _fit(home, None)
    assert _made(Path.cwd() / "runs" / "fit") == {"checkpoints", "logs", "sampler"}
    assert _made(Path.cwd()) == {"runs"}


@pytest.mark.usefixtures("data")
def test_a_checkpoint_in_the_home_is_found_by_its_tilde(home: Path) -> None:
    _fit(home, "~/runs/x")
    (path,) = (home / "runs" / "x" / "checkpoints").glob("last.ckpt")
    cli.main(["validate", "--config=~/config.yaml", f"--ckpt_path=~/{path.relative_to(home)}"])


def test_lm_evals_arguments_may_name_the_home(home: Path) -> None:
    (home / "policy.yaml").write_text("commits_per_forward: 2\n")
    given = {"base": "~/dream", "sampler": "~/s", "policy": "~/policy.yaml"}
    settings = read(given)
    assert (settings.base, settings.sampler) == (str(home / "dream"), str(home / "s"))
    assert settings.decoder().commits_per_forward == 2
    assert Place.of("~/rows.jsonl", None, "test", None).source == str(home / "rows.jsonl")


@pytest.mark.parametrize(
    "arguments", [["info", "~/dream"], ["info", "--base=~/dream"]], ids=["first", "flag"]
)
def test_a_setting_without_its_flag_may_name_the_home(
    home: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(arguments)
    assert str(home / "dream") in "".join(capsys.readouterr().out.split())  # it wraps lines
