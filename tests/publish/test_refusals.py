"""What is not known of a sampler is not published."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dlmjoint import cli
from dlmjoint.errors import ConfigError, DataError, LoadError, MismatchError
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.sampler_config import JointSamplerConfig
from dlmjoint.publish.command import publish
from tests.conftest import GOLDEN
from tests.publish.repositories import REPO, SAMPLER, copied


def test_a_missing_training_config_is_refused_before_anything_is_written(
    evaluated: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"give the config\.yaml in fit's logs"):
        publish(SAMPLER, REPO, evaluated, tmp_path / "none.yaml", dry_run=out)
    assert not list(out.iterdir())


@pytest.mark.parametrize("name", ["provenance.json", "metrics.json"])
def test_a_sampler_without_provenance_is_not_published(
    evaluated: Path, tmp_path: Path, name: str
) -> None:
    folder = copied(tmp_path / "sampler", name)
    with pytest.raises(DataError, match=rf"{name} is missing: .*dlmjoint fit.* write"):
        publish(folder, REPO, evaluation=evaluated, dry_run=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_provenance_that_does_not_say_the_command_is_refused(
    evaluated: Path, tmp_path: Path
) -> None:
    folder = copied(tmp_path / "sampler")
    values = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(values | {"command": ""}))
    with pytest.raises(DataError, match="does not say the command"):
        publish(folder, REPO, evaluation=evaluated, dry_run=tmp_path / "out")


def test_a_converted_sampler_needs_no_numbers_of_a_training(
    evaluated: Path, tmp_path: Path
) -> None:
    folder = copied(tmp_path / "sampler", "metrics.json")
    values = json.loads((folder / "provenance.json").read_text())
    values["settings"]["checkpoint"] = "adjust.ckpt"
    (folder / "provenance.json").write_text(json.dumps(values))
    publish(folder, REPO, evaluation=evaluated, dry_run=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| checkpoint | adjust.ckpt |" in card
    assert "The last validation" not in card


def test_a_sampler_without_measurements_is_not_published(tmp_path: Path) -> None:
    folder = copied(tmp_path / "sampler")
    shutil.rmtree(folder / "evaluation", ignore_errors=True)
    with pytest.raises(DataError, match=r"settings\.json is missing: evaluate the sampler with"):
        publish(folder, REPO, dry_run=tmp_path / "out")


def test_an_evaluation_that_was_not_scored_is_refused(evaluated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(evaluated, tmp_path / "run")
    (run / "scores.json").unlink()
    with pytest.raises(DataError, match=r"scores\.json is missing"):
        publish(SAMPLER, REPO, evaluation=run, dry_run=tmp_path / "out")


def test_measurements_of_another_sampler_are_refused(evaluated: Path, tmp_path: Path) -> None:
    folder = copied(tmp_path / "sampler")
    other = JointSampler.from_pretrained(folder)
    torch.nn.init.constant_(other.gain.weight, 0.1)
    other.save_pretrained(folder)
    with pytest.raises(MismatchError, match="the numbers are another sampler's"):
        publish(folder, REPO, evaluation=evaluated, dry_run=tmp_path / "out")


def test_measurements_with_another_base_are_refused(evaluated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(evaluated, tmp_path / "run")
    made = json.loads((run / "settings.json").read_text())
    made["base"]["fingerprint"] = "another"
    (run / "settings.json").write_text(json.dumps(made))
    with pytest.raises(MismatchError, match="evaluate it with its own base"):
        publish(SAMPLER, REPO, evaluation=run, dry_run=tmp_path / "out")


def test_another_base_is_refused(evaluated: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="name its own base"):
        publish(SAMPLER, REPO, evaluation=evaluated, base=str(GOLDEN / "dream"), dry_run=tmp_path)


@pytest.mark.parametrize(
    ("repo", "said"), [("tiny-joint", "names no owner"), ("a/b/c", "is no hub id")]
)
def test_a_name_that_is_no_hub_id_is_refused(repo: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        publish(SAMPLER, repo, dry_run=tmp_path)


def test_a_dry_run_does_not_write_into_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(DataError, match="is not empty"):
        publish(SAMPLER, REPO, dry_run=tmp_path)


def test_a_folder_that_is_not_there_is_refused_in_one_line_and_not_looked_for_elsewhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere, out = tmp_path / "none", tmp_path / "out"
    with pytest.raises(SystemExit) as failure:
        cli.main(["publish", str(nowhere), REPO, "--dry-run", str(out)])
    assert failure.value.code == 2
    told = f"dlmjoint: error: there is no folder {nowhere}: name one that fit or generate wrote\n"
    assert capfd.readouterr().err == told
    assert not out.exists()


def test_a_folder_that_is_neither_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(SystemExit) as failure:
        cli.main(["publish", str(tmp_path / "other"), REPO, "--dry-run", str(tmp_path / "out")])
    assert failure.value.code == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("dlmjoint: error: ")


def test_a_config_without_a_base_is_no_samplers_to_publish(evaluated: Path, tmp_path: Path) -> None:
    folder = copied(tmp_path / "sampler")
    config = JointSamplerConfig.from_pretrained(folder)
    config.base_name = None
    config.save_pretrained(folder)
    with pytest.raises(LoadError, match="names no base"):
        publish(folder, REPO, evaluation=evaluated, dry_run=tmp_path / "out")
