"""A line of people, copied, reversed, sorted, shuffled, or changed in one place: where parallel
unmasking breaks.

After ParallelBench's idea (arXiv 2510.04767); the wording, the lines and the scorers are ours. Where
the answer follows from the prompt, each token has one right value and tokens written together cannot
contradict each other. Where several answers are right, tokens depend on one another: n names in a new
order are a permutation with probability n! / n^n if each is drawn from its marginal, 1.5 % for six.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.kinds.questions import Question
from dlmjoint.evaluation.tasks.puzzles.base import ManyAnswers
from dlmjoint.tiny.corpus import NAMES

Line = tuple[str, ...]

PEOPLE = (
    "Alice", "Brian", "Carla", "David", "Elena", "Frank", "Grace", "Henry", "Irene", "James",
    "Karen", "Laura", "Marco", "Nadia", "Oscar", "Paula", "Quinn", "Rosa", "Simon", "Tina",
    "Ursula", "Victor", "Wanda", "Xavier", "Yusuf", "Zelda",
)  # fmt: skip
"""Names a large model writes as one or two tokens."""


@dataclass(frozen=True)
class Asked:
    """A request about a line."""

    text: str
    """In words."""
    answers: frozenset[Line]
    """Every line that fulfils it."""
    shown: Line
    """One of them, for a worked example."""


class Operation(ABC):
    """What is to be done with a line. A new one is a new class; YAML names it."""

    least: int = 2
    """People in the shortest line it makes sense for."""

    @abstractmethod
    def ask(self, line: Line, newcomer: str, random: Random) -> Asked:
        """The request; `newcomer` is nobody in the line."""


@dataclass(frozen=True)
class Copy(Operation):
    """One right answer."""

    def ask(self, line: Line, newcomer: str, random: Random) -> Asked:
        """The line as it is."""
        return Asked("Write down the line as it is.", frozenset({line}), line)


@dataclass(frozen=True)
class Reverse(Operation):
    """One right answer."""

    def ask(self, line: Line, newcomer: str, random: Random) -> Asked:
        """Last to first."""
        return Asked("Write down the line from last to first.", frozenset({line[::-1]}), line[::-1])


@dataclass(frozen=True)
class Sort(Operation):
    """One right answer."""

    def ask(self, line: Line, newcomer: str, random: Random) -> Asked:
        """In the order of the alphabet."""
        ordered = tuple(sorted(line))
        return Asked("Write down the line in alphabetical order.", frozenset({ordered}), ordered)


@dataclass(frozen=True)
class Shuffle(Operation):
    """n! - 1 right answers: all orders but the line's own. Every name depends on all others."""

    def ask(self, line: Line, newcomer: str, random: Random) -> Asked:
        """Another order, everyone once."""
        other = line
        while other == line:
            other = tuple(random.sample(line, len(line)))
        return Asked("Write down the line in a different order.", AnyOther(line), other)


class AnyOther(frozenset[Line]):
    """All orders of a line but its own, without listing them."""

    def __new__(cls, line: Line) -> "AnyOther":
        """Around one line."""
        return super().__new__(cls, {line})

    def __contains__(self, found: object) -> bool:
        (line,) = self
        return isinstance(found, tuple) and sorted(found) == sorted(line) and found != line


@dataclass(frozen=True)
class Change(Operation):
    """The line changed at one place: one right answer, several where the place is free."""

    anywhere: bool = False
    """The place is the writer's choice."""

    def at_one(self, lines: list[Line], words: list[str], free: str, random: Random) -> Asked:
        """The request for one of the lines, in its words; in `free` ones for any of them."""
        place = random.randrange(len(lines))
        answers = frozenset(lines if self.anywhere else [lines[place]])
        text = free if self.anywhere else words[place]
        return Asked(f"{text} Write down the new line.", answers, lines[place])


@dataclass(frozen=True)
class Insert(Change):
    """One right answer; n + 1 where the place is free: all names behind it depend on it."""

    def ask(self, line: Line, newcomer: str, random: Random) -> Asked:
        """The line with one more."""
        lines = [(*line[:i], newcomer, *line[i:]) for i in range(len(line) + 1)]
        words = [f"{newcomer} joins the line as number {i + 1}." for i in range(len(lines))]
        return self.at_one(lines, words, f"{newcomer} joins the line anywhere.", random)


@dataclass(frozen=True)
class Remove(Change):
    """One right answer; n where the one who leaves is free: all names behind depend on it."""

    def ask(self, line: Line, newcomer: str, random: Random) -> Asked:
        """The line with one less."""
        lines = [line[:i] + line[i + 1 :] for i in range(len(line))]
        words = [f"{name} leaves the line." for name in line]
        return self.at_one(lines, words, "One person leaves the line.", random)


@dataclass(frozen=True)
class Replace(Change):
    """One right answer; n where the one who is replaced is free: exactly one name may change."""

    def ask(self, line: Line, newcomer: str, random: Random) -> Asked:
        """The line with another in one place."""
        lines = [(*line[:i], newcomer, *line[i + 1 :]) for i in range(len(line))]
        words = [f"{newcomer} takes the place of {name}." for name in line]
        return self.at_one(lines, words, f"{newcomer} takes the place of one person.", random)


@dataclass(frozen=True, kw_only=True)
class WaitingLine(ManyAnswers):
    """Lines of `length` people and one operation.

    Read is the first line of the answer that lists one of the people and somebody else, behind its last
    colon; without such a line, the names that stand alone on lines. Whatever is listed between names
    that is no name is read too, and makes the line a wrong one. Right if the line fulfils the request.
    """

    stream: ClassVar[str] = "line"

    operation: Operation
    """What is to be done."""
    name: str = "waiting_line"
    length: int = 6
    """People in the line."""
    people: tuple[str, ...] = PEOPLE
    """Who may stand in it."""
    max_new_tokens: int = 64
    before: str = "Line: "

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.operation.least <= self.length < len(self.people):
            raise ConfigError(
                f"length is {self.length}, expected {self.operation.least} to "
                f"{len(self.people) - 1}: one of the people must be left to join"
            )

    def grade(self, example: Example, text: str) -> Grade:
        """Right if the line in the text is one of those asked for."""
        found = read_line(self.answer(text), self.people)
        if not found:
            return Grade(correct=False, extracted=None, reason="none of the people in the text")
        written = ", ".join(found)
        if found in self._made(self.key(example.id))[1].answers:
            return Grade(correct=True, extracted=written, reason="what was asked for")
        return Grade(correct=False, extracted=written, reason=f"for example {example.reference}")

    def puzzle(self, key: str) -> Question:
        """A line and what is to be done with it."""
        line, asked = self._made(key)
        shown = ", ".join(asked.shown)
        return Question(f"{', '.join(line)}\n{asked.text}", shown, shown)

    def _made(self, key: str) -> tuple[Line, Asked]:
        random = Random(key)
        *line, newcomer = random.sample(self.people, self.length + 1)
        return tuple(line), self.operation.ask(tuple(line), newcomer, random)


@dataclass(frozen=True, kw_only=True)
class TinyWaitingLine(WaitingLine):
    """The same in the tiny world's names, each one token. No tiny model was trained on it."""

    length: int = 4
    people: tuple[str, ...] = NAMES
    max_new_tokens: int = 16
    shots: int = 0
    opening: str = "<|beginoftext|>"
    before: str = ""
    after: str = "\n"


SEPARATOR = re.compile(r",(?:\s*and(?:\s+then)?\b)?|;|->|→|\band(?:\s+then)?\b|\bthen\b")
"""What may stand between two names."""
AROUND = re.compile(r"^[\s\d.)(*•\"'`-]+|[\s.!?)*\"'`]+$")
"""Numbers and marks around a name."""


def read_line(text: str, people: tuple[str, ...]) -> Line:
    """The line a text gives: see `WaitingLine`; empty if it names none of the people."""
    found = [items for line in text.splitlines() if (items := _items(line, people))]
    together = next((items for items in found if len(items) > 1), None)
    return tuple(name for (name,) in found) if together is None else together


def _items(line: str, people: tuple[str, ...]) -> Line:
    """What a line lists, strangers too; empty if it names none of the people."""
    someone = rf"\b(?:{'|'.join(map(re.escape, people))})"
    if not re.search(rf"{someone}\b", line):
        return ()
    pieces = [AROUND.sub("", piece) for piece in SEPARATOR.split(line.rpartition(":")[2])]
    items: list[str] = []
    for piece in filter(None, pieces):
        words = piece.split()
        if set(words) <= set(people):
            items += words
        elif not items and (name := re.search(rf"{someone}$", piece)):
            items.append(name[0])  # "the line is now Rosa"
        else:
            items.append(piece)
    return tuple(items)
