"""Imports point down."""

import ast
from pathlib import Path

import dlmjoint

ROOT = Path(dlmjoint.__file__).parent
RANKS = [
    {"types", "errors", "random", "provenance", "signals", "pickles", "paths", "atomic", "verbs"},
    {"models"},
    {"decoding"},
    {"trajectories"},
    {"sampling", "custom_generate"},
    {"pretrain"},
    {"tiny", "code"},
    {"distill", "evaluation", "convert", "show", "arithmetic", "info", "publish"},
    {"bench", "suggest", "completion"},
    {"cli"},
    {"__main__"},
]
TOP = {"__init__"}
"""The public names: may import anything, is imported by nobody below."""


def _rank(part: str) -> int:
    (rank,) = (number for number, parts in enumerate(RANKS) if part in parts)
    return rank


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("dlmjoint.")}
    return found


def test_imports_point_down() -> None:
    upward = []
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if part in TOP:
            continue
        upward += [(str(path), name) for name in _imports(path) if _rank(name) > _rank(part)]
    assert not upward


def test_every_part_has_a_rank() -> None:
    parts = {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in ROOT.rglob("*.py")}
    assert parts - TOP == set().union(*RANKS)


def test_only_the_mauve_metric_imports_mauve() -> None:
    users = [
        p.name
        for p in ROOT.rglob("*.py")
        if "import mauve" in p.read_text() or "from mauve" in p.read_text()
    ]
    assert users == ["mauve.py"]
