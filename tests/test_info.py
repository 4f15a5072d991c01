"""`dlmjoint info`: what the command prints, writes and refuses."""

import json
import shutil
from pathlib import Path

import pytest

from dlmjoint import cli
from tests.conftest import CHECKPOINTS, GOLDEN, PUBLISHED

TINY = CHECKPOINTS / "tiny-dream"


def _folder(path: Path, name: str) -> str:
    """A folder with a published config.json and nothing else."""
    path.mkdir()
    shutil.copy(PUBLISHED / f"{name}.json", path / "config.json")
    return str(path)


def test_a_config_alone_is_enough_and_everything_printed_is_written(tmp_path, capsys):
    folder = _folder(tmp_path / "dream", "dream-7b")
    cli.main(["info", folder, "--json", str(tmp_path / "info.json")])
    printed = capsys.readouterr().out
    assert "258.8 M" in printed
    assert "not here" in printed  # whose the measured numbers are
    found = json.loads((tmp_path / "info.json").read_text())
    assert found["base"]["layer_parameters"] == 258_762_240
    assert found["gpu_hours"]["generate"] == pytest.approx(
        found["flops"]["trajectory"] * 100_000 / (0.4 * 989e12) / 3600
    )
    assert found["provenance"]["settings"]["base"] == folder


def test_the_base_may_be_named_with_or_without_its_flag(capsys):
    cli.main(["info", "--base", str(TINY)])
    flagged = capsys.readouterr().out
    cli.main(["info", str(TINY)])
    assert capsys.readouterr().out == flagged


def test_settings_come_from_a_file_too(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(f"base: {TINY}\nexamples: 12345\n")
    cli.main(["info", "--config", str(tmp_path / "c.yaml")])
    assert "12,345 examples" in capsys.readouterr().out


def test_a_sampler_of_the_base_is_compared_by_weights(capsys):
    cli.main(["info", str(TINY), "--sampler", str(CHECKPOINTS / "tiny-joint")])
    assert "compared by weights" in " ".join(capsys.readouterr().out.split())


def test_a_sampler_is_compared_by_shapes_where_the_weights_are_absent(tmp_path, capsys):
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(TINY / "config.json", folder)
    cli.main(["info", str(folder), "--sampler", str(CHECKPOINTS / "tiny-joint")])
    assert "shapes" in capsys.readouterr().out


def _fails(arguments: list[str], capfd) -> str:
    with pytest.raises(SystemExit) as failure:
        cli.main(["info", *arguments])
    assert failure.value.code == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("dlmjoint: error: ")
    return line


def test_a_folder_without_a_config_ends_in_one_line(tmp_path, capfd):
    assert "config.json" in _fails([str(tmp_path)], capfd)


def test_an_unknown_family_ends_in_one_line(tmp_path, capfd):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "'bert' is no known family" in _fails([str(tmp_path)], capfd)


def test_a_sampler_of_another_base_ends_in_one_line(tmp_path, capfd):
    joint = str(CHECKPOINTS / "tiny-joint")
    assert "other shapes" in _fails([str(GOLDEN / "dream"), "--sampler", joint], capfd)


def test_a_sampler_of_other_weights_ends_in_one_line(tmp_path, capfd):
    shutil.copytree(CHECKPOINTS / "tiny-joint", tmp_path / "joint")
    path = tmp_path / "joint" / "config.json"
    values = json.loads(path.read_text()) | {"base_fingerprint": "0" * 16}
    path.write_text(json.dumps(values))
    line = _fails([str(TINY), "--sampler", str(tmp_path / "joint")], capfd)
    assert "weights 0000000000000000" in line


def test_a_base_is_no_sampler(capfd):
    assert "not a joint sampler's" in _fails([str(TINY), "--sampler", str(TINY)], capfd)
