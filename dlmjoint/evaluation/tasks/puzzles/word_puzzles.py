"""Puzzles with many right answers, none of which is made of independent words.

After ParallelBench's idea (arXiv 2510.04767); puzzles, wording and scorers are ours.
"""

import re
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.kinds.questions import Question
from dlmjoint.evaluation.tasks.puzzles.base import ManyAnswers
from dlmjoint.evaluation.tasks.puzzles.waiting_line import PEOPLE
from dlmjoint.tiny.corpus import ITEMS, NAMES

THINGS = (
    "apples", "books", "candles", "drums", "envelopes", "flowers", "gloves", "hammers", "lamps",
    "marbles", "needles", "oranges", "pencils", "ribbons", "spoons", "towels",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Assignment(ManyAnswers):
    """Give each person a different thing: n! right answers, every thing depends on all others; n
    things drawn from their marginals all differ with probability n! / n^n.

    Read is, for every person, the first thing named behind the person and before the next one. Right
    if everyone has one, and all differ.
    """

    stream: ClassVar[str] = "assign"

    name: str = "assignment"
    size: int = 5
    """People, and things."""
    people: tuple[str, ...] = PEOPLE
    """Who may be asked about."""
    things: tuple[str, ...] = THINGS
    """What may be given."""
    max_new_tokens: int = 64
    instruction: str = "Give each person a different thing.\n\n"
    before: str = "People: "

    def __post_init__(self) -> None:
        super().__post_init__()
        most = min(len(self.people), len(self.things))
        if not 2 <= self.size <= most:
            raise ConfigError(f"size is {self.size}, expected 2 to {most}")

    def grade(self, example: Example, text: str) -> Grade:
        """Right if it is a one-to-one assignment."""
        people, things = self._made(self.key(example.id))
        given = read_pairs(self.answer(text), people, things)
        if not given:
            return Grade(correct=False, extracted=None, reason="nobody is given anything")
        written = ", ".join(f"{person}: {thing}" for person, thing in given.items())
        without = [person for person in people if person not in given]
        if without:
            return Grade(False, written, f"{without[0]} has nothing")
        if len(set(given.values())) < len(people):
            return Grade(False, written, "two have the same")
        return Grade(True, written, "everyone has another thing")

    def puzzle(self, key: str) -> Question:
        """People and things, and one way to give them."""
        people, things = self._made(key)
        given = dict(zip(people, Random(key + "/shown").sample(things, len(things)), strict=True))
        shown = ", ".join(f"{person}: {thing}" for person, thing in given.items())
        return Question(f"{', '.join(people)}\nThings: {', '.join(things)}", shown, shown)

    def _made(self, key: str) -> tuple[list[str], list[str]]:
        random = Random(key)
        return random.sample(self.people, self.size), random.sample(self.things, self.size)


@dataclass(frozen=True, kw_only=True)
class TinyAssignment(Assignment):
    """The same in the tiny world's words, each one token. No tiny model was trained on it."""

    size: int = 3
    people: tuple[str, ...] = NAMES
    things: tuple[str, ...] = ITEMS
    max_new_tokens: int = 16
    shots: int = 0
    opening: str = "<|beginoftext|>"
    instruction: str = ""
    before: str = ""
    after: str = "\n"


@dataclass(frozen=True, kw_only=True)
class LatinSquare(ManyAnswers):
    """Any square in which every row and every column holds each symbol once. Each cell depends on its
    row and its column; of squares of independent cells 2 in 256 are right at two symbols, 12 in 19,683
    at three.

    Read are the last rows of the text: as many consecutive lines as there are symbols, each with as
    many of them.
    """

    stream: ClassVar[str] = "latin"

    name: str = "latin_square"
    size: int = 3
    """Symbols, rows and columns."""
    symbols: tuple[str, ...] = ("A", "B", "C", "D", "E", "F", "G", "H")
    """What may stand in a cell."""
    max_new_tokens: int = 32
    instruction: str = (
        "Write a square in which every row and every column holds each symbol once.\n\n"
    )
    before: str = "Symbols: "
    after: str = "\nSquare:\n"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.size <= len(self.symbols):
            raise ConfigError(f"size is {self.size}, expected 2 to {len(self.symbols)}")

    def grade(self, example: Example, text: str) -> Grade:
        """Right if all rows and columns hold every symbol."""
        symbols = self._symbols(self.key(example.id))
        rows = read_square(self.answer(text), symbols)
        if rows is None:
            return Grade(correct=False, extracted=None, reason="no square in the text")
        written = "\n".join(" ".join(row) for row in rows)
        for kind, lines in (("row", rows), ("column", list(zip(*rows, strict=True)))):
            for number, line in enumerate(lines, 1):
                if len(set(line)) < len(symbols):
                    return Grade(False, written, f"{kind} {number} holds a symbol twice")
        return Grade(True, written, "a Latin square")

    def _symbols(self, key: str) -> list[str]:
        return Random(key).sample(self.symbols, self.size)

    def puzzle(self, key: str) -> Question:
        """Symbols, and a square of them: one line, shifted."""
        symbols, random = self._symbols(key), Random(key + "/shown")
        order = random.sample(range(self.size), self.size)
        shift = [symbols[i:] + symbols[:i] for i in order]
        square = "\n".join(" ".join(row) for row in shift)
        return Question(" ".join(symbols), square, square)


def read_pairs(text: str, people: list[str], things: list[str]) -> dict[str, str]:
    """Who is given what: behind each person's first mention the first thing before the next person."""
    words = re.findall(r"\b(?:" + "|".join(map(re.escape, people + things)) + r")\b", text)
    given: dict[str, str] = {}
    person = None
    for word in words:
        if word in people:
            person = word
        elif person is not None and person not in given:
            given[person] = word
    return given


def read_square(text: str, symbols: list[str]) -> list[list[str]] | None:
    """The last square of a text, row by row; None if there is none."""
    pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, symbols)) + r")(?!\w)")
    rows = [pattern.findall(line) for line in text.splitlines() if line.strip()]
    size = len(symbols)
    for start in range(len(rows) - size, -1, -1):
        if all(len(row) == size for row in rows[start : start + size]):
            return rows[start : start + size]
    return None
