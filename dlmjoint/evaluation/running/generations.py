"""Generations on disk: one JSON line each, appended per batch, safe to interrupt at any byte.

While a run goes on every process appends to a part of its own beside the file; `gather` brings the
parts into the file. A killed run leaves parts, the next one gathers them first.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dlmjoint.disk.provenance import write_text
from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Generation

log = logging.getLogger(__name__)


class Line(NamedTuple):
    """A complete line and what it says."""

    text: str
    generation: Generation


def read(path: Path) -> list[Generation]:
    """The complete lines of a file, none if there is no file.

    A half-written last line is left out with a warning. Raises DataError for any other bad line.
    """
    return [line.generation for line in _lines(path)]


def part(path: Path, writer: str) -> Path:
    """Where a process writes what belongs into a file.

    Every process of every run has a name of its own, so no two ever write one file: not even a
    process of a killed run that does not know it yet and its successor.
    """
    return path.with_name(f"{path.name}.part-{writer}")


def append(path: Path, generations: Iterable[Generation]) -> None:
    """Add lines, flushed before the file is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(g.to_json(), ensure_ascii=False) + "\n" for g in generations)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))
        file.flush()


def gather(path: Path) -> None:
    """Bring the parts beside a file into it: every example once, in the order of the ids.

    The new file takes the old one's place before the parts go, so nothing is lost whenever this
    stops; what is then in both is one example. Raises DataError for a bad line.
    """
    parts = sorted(path.parent.glob(f"{path.name}.part-*"))
    lines: dict[int, str] = {}
    for line in (line for each in (path, *parts) for line in _lines(each)):
        lines.setdefault(line.generation.example_id, line.text)
    text = "".join(lines[example] for example in sorted(lines))
    if (path.read_bytes() if path.exists() else b"") != text.encode():
        write_text(path, text)
    for each in parts:
        each.unlink(missing_ok=True)


def _lines(path: Path) -> list[Line]:
    found: list[Line] = []
    raw = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, content in enumerate(raw, start=1):
        line = _parse(content)
        if line is not None:
            found.append(line)
        elif number == len(raw):
            log.warning("%s: line %d is half written; it is redone", path, number)
        else:
            raise DataError(f"{path}: line {number} is no generation; delete the file to redo it")
    return found


def _parse(content: bytes) -> Line | None:
    if not content.endswith(b"\n"):
        return None
    try:
        text = content.decode("utf-8")
        return Line(text, Generation.from_json(json.loads(text)))
    except (ValueError, TypeError):
        return None
