"""A decoding as one animated picture, for places where no script runs: a README, a slide."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from rich.cells import cell_len, chop_cells

from dlmjoint.show.record import WRITERS, Recording, cost_line
from dlmjoint.show.template import render

COLUMNS = 56
"""Cells of a line: what a phone still shows at a size that can be read."""
CELL, LINE, MARGIN = 9.0, 28, 16
"""Width of a cell, height of a line, and what is left free around them, in pixels."""
STEP, REST = 0.6, 4.0
"""Seconds of a step, and of looking at the finished text before it begins again."""
UNSPEAKABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold."""


@dataclass(frozen=True)
class Box:
    """A piece of the response where it stands in the picture, all of one line."""

    text: str
    row: int
    column: int
    """Its first cell."""
    writer: str
    step: int
    """When it is complete."""

    @property
    def cells(self) -> int:
        """Its width."""
        return cells(self.text)


def cells(text: str) -> int:
    """The width of a text: at least one cell, so that half a joined sign is seen, too."""
    return max(1, cell_len(text))


def animation(recording: Recording) -> str:
    """The SVG of a finished recording: it plays by itself, in a loop, in the reader's light or dark,
    and shows the finished text where motion is not wanted. Special tokens at the end are left out."""
    prompt = [piece for piece in recording.prompt if piece.kind == "text"]
    asked = list(_laid(_lines("".join(piece.text for piece in prompt)), 0))
    top = 1 + max((row for _, row, _ in asked), default=-1)
    boxes = _boxes(recording, top)
    rows = max((box.row for box in boxes), default=top) + 1
    seconds = recording.last * STEP + REST
    return render(
        "dlmjoint.show",
        "animation.svg",
        asked=[(*one, cells(one[0])) for one in asked],
        boxes=boxes,
        writers={name: told for name, told in WRITERS.items() if name in {b.writer for b in boxes}},
        steps=[
            {
                "from": round(100 * step * STEP / seconds, 3),
                "until": round(100 * (step + 1) * STEP / seconds, 3),
                "tokens": recording.costs[step].tokens,
            }
            for step in range(recording.last + 1)
        ],
        cost=", ".join(cost_line(recording.costs[-1]).split(", ")[:-1]),
        seconds=seconds,
        rows=rows,
        cell=CELL,
        line=LINE,
        margin=MARGIN,
        width=2 * MARGIN + COLUMNS * CELL,
    )


def _boxes(recording: Recording, top: int) -> list[Box]:
    """What is drawn of the response, from row `top` on."""
    pieces = recording.pieces(recording.last)
    after = sum(1 for _ in takewhile(lambda piece: piece.kind != "text", reversed(pieces)))
    shown = pieces[: len(pieces) - after]
    newest = {entry.column: entry for entry in recording.written}
    last = [max((newest[c] for c in range(p.first, p.stop)), key=lambda e: e.step) for p in shown]
    parts = [(part, entry) for p, entry in zip(shown, last, strict=True) for part in _lines(p.text)]
    laid = _laid([part for part, _ in parts], top)
    return [
        Box(text, row, column, entry.writer, entry.step)
        for (text, row, column), (_, entry) in zip(laid, parts, strict=True)
    ]


def _lines(text: str) -> list[str]:
    """A text in parts that each fit on a line; one that ends a line ends in `↵`."""
    speakable = UNSPEAKABLE.sub("\ufffd", text).replace("\r", "").replace("\t", "    ")
    parts = speakable.replace("\n", "↵\n").splitlines()
    return [
        fits
        for part in parts
        if part
        for fits in ([part] if cells(part) <= COLUMNS else chop_cells(part, COLUMNS))
    ]


def _laid(parts: Sequence[str], top: int) -> Iterator[tuple[str, int, int]]:
    """Each part with its row and its first cell."""
    row, column = top, 0
    for part in parts:
        if column + cells(part) > COLUMNS:
            row, column = row + 1, 0
        yield part, row, column
        row, column = (row + 1, 0) if part.endswith("↵") else (row, column + cells(part))
