"""Countdown: reach a number from others by arithmetic, each used once. Puzzles made by seed."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from operator import add, mul, sub, truediv
from random import Random
from typing import ClassVar

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.kinds.questions import Question
from dlmjoint.evaluation.tasks.puzzles.base import Puzzles

EXPRESSION = re.compile(r"[(\d][\d\s+\-*/×÷−()]*[)\d]")
"""A stretch of a line that may be arithmetic."""
SIGNS = str.maketrans("×÷−", "*/-")
TOKEN = re.compile(r"\d+|[-+*/()]")
MOST_TRIES = 10_000
WAYS = {"+": add, "-": sub, "*": mul, "/": truediv}


@dataclass(frozen=True, kw_only=True)
class Countdown(Puzzles):
    """Numbers and a target; the answer is one expression.

    Read is the last expression with an operation in the text, up to its `=` if it has one, and before
    a next question. It is right if it uses each number once, nothing else, and has the target's value
    exactly. Any solution counts, not only the one the puzzle was made from.
    """

    stream: ClassVar[str] = "countdown"

    name: str = "countdown"
    n: int = 256
    max_new_tokens: int = 32
    numbers: int = 3
    """Numbers to use."""
    largest: int = 99
    """None of them is larger."""
    largest_target: int = 999
    """The target is not larger, nor below 10."""
    shots: int = 8
    instruction: str = (
        "Combine the numbers by +, -, * and / so that they make the target. "
        "Use each number exactly once.\n\n"
    )
    before: str = "Numbers: "

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.numbers <= 6:
            raise ConfigError(f"numbers is {self.numbers}, expected 2 to 6")
        if self.largest < 9 or self.largest_target < 2 * self.largest:
            raise ConfigError("largest is 9 or more, largest_target at least twice as much")

    def grade(self, example: Example, text: str) -> Grade:
        """See the class."""
        expression = extract_expression(self.answer(text))
        if expression is None:
            return Grade(correct=False, extracted=None, reason="no arithmetic in the text")
        try:
            value, used = evaluate(expression)
        except (ValueError, ZeroDivisionError, RecursionError) as error:
            return Grade(False, None, f"{expression} has no value: {error}")
        target, numbers = evaluate(str(example.reference).partition("=")[0])
        if sorted(used) != sorted(numbers):
            return Grade(False, expression, f"{expression} does not use {numbers} once each")
        if value != target:
            return Grade(False, expression, f"{expression} is {value}, the target {target}")
        return Grade(True, expression, f"{expression} is {target}")

    def puzzle(self, key: str) -> Question:
        """Two of the numbers are combined until one is left: the target."""
        random = Random(key)
        for _ in range(MOST_TRIES):
            numbers = [random.randint(1, self.largest) for _ in range(self.numbers)]
            parts = [(value, str(value)) for value in numbers]
            while len(parts) > 1:
                left, right = (parts.pop(random.randrange(len(parts))) for _ in range(2))
                parts.append(_combined(random, left, right))
            target, expression = parts[0]
            if 10 <= target <= self.largest_target:
                solution = expression[1:-1] + f" = {target}"
                asked = f"{', '.join(map(str, numbers))}\nTarget: {target}"
                return Question(asked, solution, solution)
        raise ConfigError(f"no target up to {self.largest_target} found: allow larger ones")


def _combined(random: Random, left: tuple[int, str], right: tuple[int, str]) -> tuple[int, str]:
    """A whole positive number made of two, and how; signs are equally likely where they work."""
    (a, first), (b, second) = left, right
    ways = {f"({first} + {second})": a + b, f"({first} * {second})": a * b}
    if a > b:
        ways[f"({first} - {second})"] = a - b
    if b > 1 and a % b == 0:
        ways[f"({first} / {second})"] = a // b
    expression = random.choice(list(ways))
    return ways[expression], expression


def extract_expression(text: str) -> str | None:
    """The last expression with an operation; its value may be given behind it. None if there is
    none."""
    found = None
    for line in text.splitlines():
        for part in line.split("="):
            for match in EXPRESSION.finditer(part):
                expression = match[0].translate(SIGNS).strip()
                if re.search(r"[\d)]\s*[-+*/]", expression):
                    found = expression
    return found


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """The exact value of an expression and the numbers it uses.

    Raises ValueError if it is none, ZeroDivisionError where it divides by zero.
    """
    tokens = TOKEN.findall(expression)
    used = [int(token) for token in tokens if token.isdigit()]
    if any(a.isdigit() and b.isdigit() for a, b in pairwise(tokens)):
        raise ValueError("two numbers stand side by side")
    value = _sum(tokens)
    if tokens:
        raise ValueError(f"{tokens[0]} is out of place")
    return value, used


def _sum(tokens: list[str]) -> Fraction:
    return _joined(tokens, "+-", lambda rest: _joined(rest, "*/", _atom))


def _joined(tokens: list[str], signs: str, part: Callable[[list[str]], Fraction]) -> Fraction:
    """Parts with any of these signs between them, from left to right."""
    value = part(tokens)
    while tokens and tokens[0] in signs:
        value = WAYS[tokens.pop(0)](value, part(tokens))
    return value


def _atom(tokens: list[str]) -> Fraction:
    if not tokens:
        raise ValueError("it ends too early")
    token = tokens.pop(0)
    if token.isdigit():
        return Fraction(int(token))
    if token != "(":
        raise ValueError(f"{token} is out of place")
    value = _sum(tokens)
    if not tokens or tokens.pop(0) != ")":
        raise ValueError("a bracket is not closed")
    return value
