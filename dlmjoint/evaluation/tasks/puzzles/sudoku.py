"""Sudoku: fill a grid so that rows, columns and boxes hold every digit. Puzzles made by seed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from random import Random
from typing import ClassVar

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.kinds.questions import Question
from dlmjoint.evaluation.tasks.puzzles.base import Puzzles

BETWEEN = re.compile(r"[\s|,;.:\[\]+-]+")
"""What may stand between the digits of a row."""

Grid = list[list[int]]
"""Rows of digits; 0 is empty."""


@dataclass(frozen=True, kw_only=True)
class Sudoku(Puzzles):
    """Grids with one solution, rows as lines of digits, 0 for an empty cell.

    Read are the last rows of the text: as many consecutive lines as the grid has rows, each of as many
    digits, whatever stands between them; else the last line that holds the digits of a whole grid; all
    before a next question. Right if it is the solution, which is the only one.
    """

    stream: ClassVar[str] = "sudoku"

    name: str = "sudoku"
    n: int = 256
    max_new_tokens: int = 24
    size: int = 4
    """Digits, rows and columns: 4 or 9."""
    empty: int = 8
    """Cells to fill; fewer where more would leave several solutions."""
    shots: int = 8
    instruction: str = (
        "Fill the zeros so that every row, every column and every box holds each digit once.\n\n"
    )
    before: str = "Puzzle:\n"
    after: str = "\nSolution:\n"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in (4, 9):
            raise ConfigError(f"size is {self.size}, expected 4 or 9")
        if not 1 <= self.empty <= self.size**2:
            raise ConfigError(f"empty is {self.empty}, expected 1 to {self.size**2}")

    def grade(self, example: Example, text: str) -> Grade:
        """Right if all cells are the solution's; else the first row that is not is named."""
        found = extract_grid(self.answer(text), self.size)
        if found is None:
            return Grade(correct=False, extracted=None, reason="no grid in the text")
        right = str(example.reference).splitlines()
        for number, (row, solved) in enumerate(zip(found, right, strict=True), 1):
            if row != solved:
                reason = f"row {number} is {row}, the solution's {solved}"
                return Grade(False, "\n".join(found), reason)
        return Grade(True, "\n".join(found), "the solution")

    def puzzle(self, key: str) -> Question:
        """A grid with one solution."""
        puzzle, solution = made(key, self.size, self.empty)
        return Question(written(puzzle), written(solution), written(solution))


@lru_cache(maxsize=1 << 12)
def made(key: str, size: int, empty: int) -> tuple[Grid, Grid]:
    """A puzzle and its only solution: cells of a full grid are emptied in a random order, but for those
    whose digit would no longer follow."""
    random = Random(key)
    full = next(solutions([[0] * size for _ in range(size)], random))
    puzzle = [row.copy() for row in full]
    for cell in random.sample(range(size * size), size * size):
        if sum(row.count(0) for row in puzzle) == empty:
            break
        row, column = divmod(cell, size)
        digit, puzzle[row][column] = puzzle[row][column], 0
        found = solutions([line.copy() for line in puzzle])
        if [*zip(range(2), found, strict=False)][1:]:
            puzzle[row][column] = digit
    return puzzle, full


def solutions(grid: Grid, random: Random | None = None) -> Iterator[Grid]:
    """All ways to fill a grid, which is changed meanwhile; in a random order if one is given."""
    size = len(grid)
    free = [(row, column) for row in range(size) for column in range(size) if not grid[row][column]]
    if not free:
        yield [row.copy() for row in grid]
        return
    # The cell with the fewest candidates: a contradiction shows at once.
    digits, row, column = min(((_candidates(grid, r, c), r, c) for r, c in free), key=_count)
    if random is not None:
        random.shuffle(digits)
    for digit in digits:
        grid[row][column] = digit
        yield from solutions(grid, random)
    grid[row][column] = 0


def _count(choice: tuple[list[int], int, int]) -> int:
    return len(choice[0])


def _candidates(grid: Grid, row: int, column: int) -> list[int]:
    """Digits that a cell may have."""
    size, side = len(grid), isqrt(len(grid))
    top, left = row - row % side, column - column % side
    box = (digit for line in grid[top : top + side] for digit in line[left : left + side])
    taken = {*grid[row], *(line[column] for line in grid), *box}
    return [digit for digit in range(1, size + 1) if digit not in taken]


def written(grid: Grid) -> str:
    """A line of digits per row."""
    return "\n".join("".join(map(str, row)) for row in grid)


def extract_grid(text: str, size: int) -> list[str] | None:
    """The last grid of a text, its rows as digits; None if there is none."""
    lines = [BETWEEN.sub("", line) for line in text.splitlines()]
    lines = [line for line in lines if line]
    for start in range(len(lines) - size, -1, -1):
        rows = lines[start : start + size]
        if all(row.isdecimal() and len(row) == size for row in rows):
            return rows
    whole = [line for line in lines if line.isdecimal() and len(line) == size * size]
    if not whole:
        return None
    return [whole[-1][i : i + size] for i in range(0, size * size, size)]
