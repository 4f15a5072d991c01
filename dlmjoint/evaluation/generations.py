"""Generations on disk: one JSON line each, appended per batch, safe to interrupt at any byte."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Generation

log = logging.getLogger(__name__)


def read(path: Path) -> list[Generation]:
    """The complete lines of a file, none if there is no file.

    A half-written last line is left out with a warning. Raises DataError for any other bad line.
    """
    return _read(path)[0]


def resume(path: Path) -> list[Generation]:
    """The complete lines of a file, which afterwards holds nothing else and may be appended to."""
    generations, complete = _read(path)
    if path.exists() and path.stat().st_size > complete:
        with path.open("r+b") as file:
            file.truncate(complete)
    return generations


def append(path: Path, generations: Iterable[Generation]) -> None:
    """Add lines, flushed before the file is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(g.to_json(), ensure_ascii=False) + "\n" for g in generations)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))
        file.flush()


def _read(path: Path) -> tuple[list[Generation], int]:
    """The generations, and the bytes their lines take."""
    generations: list[Generation] = []
    complete = 0
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, start=1):
        generation = _parse(line)
        if generation is not None:
            generations.append(generation)
            complete += len(line)
        elif number == len(lines):
            log.warning("%s: line %d is half written; it is redone", path, number)
        else:
            raise DataError(f"{path}: line {number} is no generation; delete the file to redo it")
    return generations, complete


def _parse(line: bytes) -> Generation | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return Generation.from_json(json.loads(line))
    except (ValueError, TypeError):
        return None
