"""Imports point down."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import dlmjoint

ROOT = Path(dlmjoint.__file__).parent
RANKS = [
    {"types", "errors", "random", "disk", "signals", "verbs", "clock"},
    {"models"},
    {"decoding"},
    {"trajectories"},
    {"sampling", "custom_generate"},
    {"pretrain"},
    {"tiny", "code"},
    {"distill", "evaluation", "convert", "show", "costs", "publish"},
    {"bench", "suggest", "completion"},
    {"training"},
    {"cli"},
    {"__main__"},
]
ROOMS = {
    "evaluation": [
        {"records", "kept"},
        {"judges"},
        {"metrics"},
        {"tasks"},
        {"running"},
        {"scoring"},
        {"likelihood", "recipes", "telling"},
        {"calibrate", "held_out", "lm_eval", "lm_eval_tasks"},
        {"commands"},
    ],
}
"""Folders whose rooms have an order of their own."""
MOST_MODULES, MOST_LINES = 15, 350
"""What a folder, and a file, may have: more is not read at a sitting."""
TOP = {"__init__"}
"""The public names: may import anything, is imported by nobody below."""


def _rank(part: str, ranks: list[set[str]]) -> int:
    (rank,) = (number for number, parts in enumerate(ranks) if part in parts)
    return rank


def _imports(path: Path, of: str) -> set[str]:
    """The first names behind `of` that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.removeprefix(of).split(".")[0] for name in names if name.startswith(of)}
    return found


def _parts(folder: Path) -> set[str]:
    return {p.relative_to(folder).parts[0].removesuffix(".py") for p in folder.rglob("*.py")} - TOP


def _upward(folder: Path, of: str, ranks: list[set[str]]) -> list[tuple[str, str]]:
    found = []
    for path in folder.rglob("*.py"):
        part = path.relative_to(folder).parts[0].removesuffix(".py")
        if part not in TOP:
            names = _imports(path, of) & set().union(*ranks)
            found += [(str(path), n) for n in names if _rank(n, ranks) > _rank(part, ranks)]
    return found


def test_imports_point_down() -> None:
    assert not _upward(ROOT, "dlmjoint.", RANKS)


@pytest.mark.parametrize("name", ROOMS)
def test_imports_point_down_among_rooms(name: str) -> None:
    assert not _upward(ROOT / name, f"dlmjoint.{name}.", ROOMS[name])


def test_every_part_has_a_rank() -> None:
    assert _parts(ROOT) == set().union(*RANKS)
    for name, ranks in ROOMS.items():
        assert _parts(ROOT / name) == set().union(*ranks)


def test_folders_and_files_are_read_at_a_sitting() -> None:
    files = list(ROOT.rglob("*.py"))
    modules = Counter(str(path.parent.relative_to(ROOT)) for path in files)
    assert not [folder for folder, n in modules.items() if n > MOST_MODULES]
    assert not [path for path in files if len(path.read_text().splitlines()) > MOST_LINES]


def test_only_the_mauve_metric_imports_mauve() -> None:
    users = [
        p.name
        for p in ROOT.rglob("*.py")
        if "import mauve" in p.read_text() or "from mauve" in p.read_text()
    ]
    assert users == ["mauve.py"]
