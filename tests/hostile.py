"""Pickles that would run something, and what a command that met one must end with."""

import os
from pathlib import Path

import pytest

from dlmjoint import cli


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr of a command that must end with status 2, warnings of others aside."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as failure:
        cli.main(arguments)
    assert failure.value.code == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    line = said.strip().splitlines()[-1]
    assert line.startswith("dlmjoint: error: ")
    return line
