"""Cells as rectangles: M per row, and a look at their logits when somebody wants one."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlmjoint.decoding.looks.look import Look
from dlmjoint.types import Canvas

Reader = Callable[[Int[Tensor, "B 1"], Int[Tensor, "B M"]], Look]
"""Rows and columns of some cells to the look at their logits."""


@dataclass(frozen=True)
class Cells:
    """M columns of every row, ascending where nothing else is said."""

    rows: Int[Tensor, " B"]
    """Which rows of the canvas."""
    columns: Int[Tensor, "B M"]
    """Canvas columns, all different within a row."""
    open: Bool[Tensor, "B M"]
    """The cells that may be written; the others are there because the rectangle has room."""
    start: int
    """The response's first column."""
    read: Reader = field(repr=False)
    seen: Look | None = field(default=None, repr=False)
    """The look, where it was taken with more cells already."""
    among: bool = False
    """Whether they are some of other cells, in whose look theirs is."""

    @cached_property
    def look(self) -> Look:
        """What there is to know of their logits; computed when it is first asked for."""
        return self.read(self.rows[:, None], self.columns) if self.seen is None else self.seen

    @property
    def taken(self) -> Look | None:
        """The look, if it was taken."""
        return self.__dict__.get("look", self.seen)

    @property
    def places(self) -> Int[Tensor, "B M"]:
        """Columns counted from the response's first."""
        return self.columns - self.start

    @property
    def rows_of_all(self) -> Int[Tensor, "B M"]:
        """The row of every cell."""
        return self.rows[:, None].expand_as(self.columns)

    def opened(self, cells: Bool[Tensor, "B M"]) -> "Cells":
        """The same cells, of which these may be written."""
        return replace(self, open=cells, seen=self.taken)

    def at(self, index: Int[Tensor, "B M"]) -> "Cells":
        """Some cells of every row, in the order of the index."""
        columns, cells = self.columns.gather(1, index), self.open.gather(1, index)
        if self.taken is None and not self.among:
            return Cells(self.rows, columns, cells, self.start, self.read)
        # What was seen with all is taken from there, if somebody asks.
        return Cells(
            self.rows, columns, cells, self.start, lambda *_: self.look.at(index), among=True
        )


def columns_of(mask: Bool[Tensor, "B L"], most: int) -> Int[Tensor, "B M"]:
    """The columns where a mask is true, ascending, in a rectangle of `most` that holds every row's;
    behind them come others. No size is asked of the device."""
    return mask.byte().sort(dim=-1, descending=True, stable=True).indices[:, :most]


@dataclass(frozen=True)
class Grid:
    """The blocks of a canvas that are written from left to right, one after the other."""

    length: int
    """Columns per block."""
    own: bool = False
    """Whether they are the base's own: then they are counted from the row's first real token, prompt
    included, and a forward says nothing of the blocks behind the one it is about. Others are counted
    from the response's first column."""

    def numbers(self, canvas: Canvas) -> Int[Tensor, "B L"]:
        """The number of every column's block; 0 in front of the response."""
        columns = torch.arange(canvas.tokens.shape[1], device=canvas.tokens.device)
        start = canvas.response.start
        places = canvas.positions if self.own else (columns - start).expand_as(canvas.tokens)
        numbers = places.div(self.length, rounding_mode="floor")
        return numbers.masked_fill(columns < start, 0) if not self.own else numbers

    def most(self, canvas: Canvas) -> int:
        """No row has more blocks."""
        length = canvas.tokens.shape[1]
        return -(-(length if self.own else length - canvas.response.start) // self.length)

    def first(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """The response columns of each row's first block with a mask in it; none in a finished row."""
        numbers, beyond = self.numbers(canvas), canvas.tokens.shape[1]
        first = numbers.masked_fill(~canvas.masked, beyond).amin(-1, True)
        found = numbers == first
        found[:, : canvas.response.start].fill_(
            False
        )  # an assignment would send the constant there
        return found
