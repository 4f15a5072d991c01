"""The documentation is true: what it shows runs, what it links to is there, what it lists is all."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from dlmjoint import cli
from dlmjoint.evaluation.records import Generation
from dlmjoint.evaluation.tasks.base import Task
from dlmjoint.trajectories.store import FEATURES
from dlmjoint.verbs import VERBS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>runs.*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```",
    flags=re.MULTILINE | re.DOTALL,
)
"""Fenced blocks. Every one of `python` runs (for reading only: `py`), and those of `bash` with a mark."""
RUNNING = [
    page
    for page in [ROOT / "README.md", *PAGES]
    if re.search(r"^```python$|^<!-- runs", page.read_text(encoding="utf-8"), re.MULTILINE)
]
FEW = "{class_path: dlmjoint.evaluation.tasks.word_problems.WordProblems, init_args: {n: 4}}"
SMALLER = {
    "configs/generate/demo.yaml": ["--prompts.init_args.n", "24", "--shard_size", "8"],
    "configs/fit/demo.yaml": ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2",
                              "--trainer.enable_progress_bar", "false", "--data.val_batches", "1"],
    "configs/eval/demo.yaml": ["--tasks", f"[{FEW}]"],
    "mine.yaml": ["--limit", "4"],
    "examples/ladder/eval.yaml": ["--limit", "4"],
}  # fmt: skip
"""What a command that a page names takes minutes for."""


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _commands(text: str) -> Iterator[list[str]]:
    """The command lines of a block, as a shell would split them."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in that has what the root of a clone has."""
    for name in ("checkpoints", "configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", RUNNING, ids=_name)
def test_what_a_page_shows_runs(
    page: Path, clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order and in one process."""
    names: dict[str, object] = {"__name__": "page"}
    blocks = list(BLOCK.finditer(page.read_text(encoding="utf-8")))
    for number, block in enumerate(blocks, 1):
        where, text = f"{_name(page)}, block {number}", block["text"]
        if block["language"] == "python":
            exec(compile(text, where, "exec"), names)
        elif block["mark"] and block["mark"] != IN_A_SHELL:
            if written := block["mark"].removeprefix("runs").removeprefix(" with "):
                config = next(b["text"] for b in blocks if b["language"] == "yaml")
                Path(written).write_text(config, encoding="utf-8")
            for words in _commands(text):
                _run(words, monkeypatch)


def _run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One command of a page, made small."""
    if words == ["pip", "install", "./examples/ladder"]:  # tests/test_outside.py installs it
        monkeypatch.syspath_prepend(str(ROOT / "examples" / "ladder"))
        return
    program, *arguments = words
    assert program == "dlmjoint"
    smaller = [flag for word in arguments for flag in SMALLER.get(word, [])]
    cli.main([*arguments, *smaller])


IN_A_SHELL = "runs in a shell"


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in RUNNING if IN_A_SHELL in p.read_text()], ids=_name)
def test_what_a_page_shows_runs_in_a_shell(page: Path, clone: Path) -> None:
    places = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["mark"] == IN_A_SHELL:
            command = ["bash", "-euo", "pipefail", "-c", block["text"]]
            subprocess.run(command, cwd=clone, env=places, check=True)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=_name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{_name(page)} links to {target}"


NAMED = re.compile(
    r"`((?:tests|configs|examples|train|eval|notebooks|checkpoints)/[a-z0-9_./-]*[a-z0-9])`"
)
"""Files of this repository that a page speaks of (in capitals stands what a reader puts there)."""


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=_name)
def test_files_that_a_page_speaks_of_are_there(page: Path) -> None:
    named = NAMED.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def _table(page: Path, first: str) -> dict[str, dict[str, str]]:
    """The cells of a page's table that begins with this heading, by row and column."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    headings, rows = _cells(lines[start]), {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = _cells(line)
        rows[cells[0]] = dict(zip(headings[1:], cells[1:], strict=True))
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@pytest.mark.parametrize(
    ("page", "readmes", "pages"),
    [
        ("numbers/tiny.md", "decoder | item agreement", "decoder | item agreement"),
        ("code.md", "decoder | parses", "decoder | parses | defined | used | hole as it was"),
    ],
)
def test_the_readmes_numbers_are_those_of_the_page_it_links_to(
    page: str, readmes: str, pages: str
) -> None:
    shown, measured = _table(ROOT / "README.md", readmes), _table(DOCS / page, pages)
    assert len(shown) >= 5
    for decoder, row in shown.items():
        assert row == {heading: measured[decoder][heading] for heading in row}


@pytest.mark.parametrize(
    ("page", "named"),
    [
        ("formats.md", lambda: [*FEATURES, *(field.name for field in fields(Generation))]),
        ("commands.md", lambda: [*VERBS, "fit", "validate"]),
    ],
)
def test_a_page_of_the_reference_names_them_all(page: str, named: Callable[[], list[str]]) -> None:
    told = set(re.findall(r"`([\w-]+)`", (DOCS / "reference" / page).read_text(encoding="utf-8")))
    assert set(named()) <= told


def test_every_task_of_the_tables_is_a_class_there_is() -> None:
    told = _table(DOCS / "reference" / "tasks.md", "class")
    assert len(told) >= 15
    for name in told:
        path = name.strip("`")
        module, _, kind = path.rpartition(".")
        inside = "" if module.startswith("dlmjoint.") else "dlmjoint.evaluation.tasks."
        assert issubclass(getattr(import_module(inside + module), kind), Task)
