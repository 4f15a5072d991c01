"""Decodings in a page: every step of it can be looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmjoint.disk.provenance import write_text
from dlmjoint.show.pieces import Draft, Piece, Speller
from dlmjoint.show.record import WRITERS, Recording, Written, cost_table
from dlmjoint.show.template import render

ANCHOR = "anchor"
"""In place of a writer: the cell was fixed before decoding began."""


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
    return render("dlmjoint.show", "page.html", data=data(recording, settings))


def data(recording: Recording, settings: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows, as JSON values."""
    blank: list[int | None] = [None] * recording.length
    shown = steps_of(
        recording.speller, recording.prompt, blank, recording.written, len(recording.costs) - 1
    )
    for step, cost, refused in zip(shown["steps"], recording.costs, recording.refused, strict=True):
        step["cost"] = cost_table(cost)
        step["refused"] = [
            {"column": draft.column, "text": recording.speller.pieces([draft.token])[0].text}
            for draft in refused
        ]
    return {"settings": dict(settings)} | shown


def steps_of(
    speller: Speller,
    prompt: Sequence[Piece],
    start: Sequence[int | None],
    written: Sequence[Written],
    last: int,
) -> dict[str, Any]:
    """A decoding as the player in `player.js` shows it: prompt, pieces with their lifetimes, tokens
    by column, and what each step wrote. `start` holds the anchors' ids, None where there is none."""
    tokens: list[Any] = [{"writer": ANCHOR, "prob": 1, "step": 0, "id": token} for token in start]
    columns: list[list[int]] = [[] for _ in range(last + 1)]
    for entry in written:
        prob = round(entry.prob, 6)
        tokens[entry.column] = {
            "writer": entry.writer,
            "prob": prob,
            "step": entry.step,
            "id": entry.token,
        }
        columns[entry.step].append(entry.column)
    made = spans(speller, start, written, last)
    anchors = {ANCHOR: "fixed beforehand"} if any(one is not None for one in start) else {}
    return {
        "writers": WRITERS | anchors,
        "prompt": [{"text": piece.text, "kind": piece.kind} for piece in prompt],
        "spans": [vars(s.piece) | {"born": s.born, "gone": s.gone} for s in made],
        "tokens": tokens,
        "steps": [{"columns": each} for each in columns],
    }


def spans(
    speller: Speller, start: Sequence[int | None], written: Sequence[Written], last: int
) -> list[Span]:
    """Every piece that any step shows, by column; a piece that stays is listed once, which keeps
    the page's size in proportion to the response's length, not to its square."""
    draft = Draft(speller, start)
    found: list[Span] = []
    since = dict.fromkeys(draft.pieces, 0)
    tokens: list[dict[int, int]] = [{} for _ in range(last + 1)]
    for entry in written:
        tokens[entry.step][entry.column] = entry.token
    for step in range(1, last + 1):
        gone, came = draft.write(tokens[step])
        found += [Span(piece, since.pop(piece), step) for piece in gone]
        since |= dict.fromkeys(came, step)
    found += [Span(piece, born, last + 1) for piece, born in since.items()]
    return sorted(found, key=lambda span: (span.piece.first, span.born))
