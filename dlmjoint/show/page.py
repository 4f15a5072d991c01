"""A recording as one self-contained HTML page."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from dlmjoint.provenance import write_text
from dlmjoint.show.pieces import Piece
from dlmjoint.show.record import WRITERS, Recording, cost_table

DATA = "@DATA@"
"""Where the template takes the recording."""


@dataclass(frozen=True)
class Span:
    """A piece of text and the steps it is to be seen in. At every step those to be seen, by column,
    are the response."""

    piece: Piece
    born: int
    """First step."""
    gone: int
    """The step after its last: when it was written over, or joined with a neighbour."""


def write_page(path: Path, recording: Recording, settings: Mapping[str, str]) -> None:
    """Write the page of a finished recording, atomically; `settings` are listed on it."""
    write_text(path, page(recording, settings))


def page(recording: Recording, settings: Mapping[str, str]) -> str:
    """The page's HTML, which names no other resource."""
    template = (files("dlmjoint.show") / "page.html").read_text(encoding="utf-8")
    return template.replace(DATA, _embedded(data(recording, settings)))


def data(recording: Recording, settings: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows, as JSON values: all steps, pieces with their lifetimes, tokens by
    column."""
    tokens = sorted(recording.written, key=lambda entry: entry.column)
    return {
        "settings": dict(settings),
        "writers": WRITERS,
        "prompt": [{"text": piece.text, "kind": piece.kind} for piece in recording.prompt],
        "spans": [
            asdict(span.piece) | {"born": span.born, "gone": span.gone} for span in spans(recording)
        ],
        "tokens": [
            {"writer": t.writer, "prob": round(t.prob, 6), "step": t.step, "id": t.token}
            for t in tokens
        ],
        "steps": [
            {
                "cost": cost_table(cost),
                "columns": [entry.column for entry in recording.wrote(step)],
            }
            for step, cost in enumerate(recording.costs)
        ],
    }


def spans(recording: Recording) -> list[Span]:
    """Every piece that any step shows, by column; a piece that stays is listed once, which keeps
    the page's size in proportion to the response's length, not to its square."""
    found: list[Span] = []
    since: dict[Piece, int] = {}
    for step in range(len(recording.costs)):
        now = recording.pieces(step)
        found += [Span(piece, since.pop(piece), step) for piece in since.keys() - set(now)]
        for piece in now:
            since.setdefault(piece, step)
    found += [Span(piece, born, len(recording.costs)) for piece, born in since.items()]
    return sorted(found, key=lambda span: (span.piece.first, span.born))


def _embedded(value: object) -> str:
    """JSON that can stand inside a script element: no `<` that could end it, ASCII only."""
    return json.dumps(value, ensure_ascii=True).replace("<", "\\u003c")
