"""One base forward being turned into commits: the desk that schedules, early rules and guides share."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.decoding.draw import Draw, in_parts
from dlmjoint.decoding.order import Order
from dlmjoint.decoding.refine import Refine
from dlmjoint.models.base import Base
from dlmjoint.random import Noise
from dlmjoint.types import Canvas, Commit, Prediction


@dataclass(frozen=True)
class Cells:
    """Cells about to be written, at most one per row, and what they are drawn from."""

    rows: Int[Tensor, " C"]
    columns: Int[Tensor, " C"]
    log_probs: Float[Tensor, "C V"]

    def keep(self, wanted: Bool[Tensor, " C"]) -> "Cells":
        """Some of them."""
        return Cells(self.rows[wanted], self.columns[wanted], self.log_probs[wanted])


@dataclass
class Turn:
    """The state between two base forwards. Rows never mix."""

    base: Base
    order: Order
    draw: Draw
    refine: Refine
    block_length: int | None
    noise: Noise
    forward: int
    """Number of this forward, from 0."""
    canvas: Canvas
    """As it is now, with this turn's commits."""
    prediction: Prediction
    """What is known about it: the base's, or the sampler's in rows that were improved."""
    commits: list[Commit] = field(default_factory=list)
    passes: Int[Tensor, " B"] = field(init=False)
    """Sampler passes spent on each row in this turn."""
    improved: Bool[Tensor, " B"] = field(init=False)
    """Rows whose prediction is the sampler's."""

    def __post_init__(self) -> None:
        self.passes = torch.zeros_like(self.canvas.tokens[:, 0])
        self.improved = torch.zeros_like(self.passes, dtype=torch.bool)
        shape, device = self.canvas.tokens.shape, self.canvas.tokens.device
        self._rank = torch.full(shape, -torch.inf, dtype=torch.float64, device=device)
        self._ranked = torch.zeros(shape, dtype=torch.bool, device=device)
        self.drafting()

    def open(self) -> Bool[Tensor, "B L"]:
        """The cells that may be written: masks computed in this forward, in the row's first
        unfinished block."""
        cells = self.canvas.masked & self.prediction.fresh
        if self.block_length is None:
            return cells
        return cells & first_block(self.canvas, self.block_length)

    def next(self, rows: Bool[Tensor, " B"], among: Bool[Tensor, "B L"] | None = None) -> Cells:
        """In each wanted row the cell its order ranks first, of the open ones or of `among`."""
        cells = self.open() if among is None else among
        self._rank_all(cells)
        found = (rows & cells.any(-1)).nonzero().squeeze(-1)
        columns = self._rank.masked_fill(~cells, -torch.inf)[found].argmax(-1)
        return Cells(found, columns, self.log_probs(found, columns))

    def commit(self, cells: Cells) -> Commit:
        """Draw a token for each cell and write it."""
        draw, places = self.draw, cells.columns - self.canvas.response.start
        tokens = draw.pick(cells.log_probs, cells.rows, places, self.noise)
        log_probs = cells.log_probs.gather(-1, tokens[:, None]).squeeze(-1)
        writer = self.refine.writer if bool(self.improved[cells.rows].any()) else "base"
        return self.write(Commit(cells.rows, cells.columns, tokens, log_probs, writer))

    def fill(self, cells: Bool[Tensor, "B L"]) -> Commit:
        """Write the most probable token into every one of these cells."""
        rows, columns = cells.nonzero(as_tuple=True)
        tokens = torch.empty_like(rows)
        log_probs = torch.empty_like(rows, dtype=torch.float64)
        for part in in_parts(len(rows), self.base.vocab_size):
            log_probs[part], tokens[part] = self._log_probs(rows[part], columns[part]).max(-1)
        return self.write(Commit(rows, columns, tokens, log_probs, "fill"))

    def write(self, commit: Commit) -> Commit:
        """Put a commit on the canvas."""
        if len(commit.rows):
            self.commits.append(commit)
            self.canvas = self.canvas.write(commit)
        return commit

    def improve(self, rows: Bool[Tensor, " B"]) -> None:
        """Renew the prediction of some rows after commits, by one sampler pass where there is a
        sampler. The other rows keep theirs, and cost nothing."""
        old, some = self.prediction, rows.any() and not rows.all()
        canvas = self.canvas.select(rows) if some else self.canvas
        known = Prediction(old.hidden[rows], old.fresh[rows]) if some else old
        renewed = self.refine(self.base, known, canvas)
        self.passes = self.passes + self.refine.passes * rows
        if renewed is known:
            return
        hidden = renewed.hidden
        if some:
            hidden = old.hidden.to(hidden.dtype, copy=True)
            hidden[rows] = renewed.hidden
        self.prediction = Prediction(hidden, old.fresh)
        self.improved |= rows
        self._ranked &= ~rows[:, None]

    def log_probs(
        self, rows: Int[Tensor, " C"], columns: Int[Tensor, " C"]
    ) -> Float[Tensor, "C V"]:
        """What some cells' tokens are drawn from; for as many as are written at once, one per row."""
        found = torch.empty(
            (len(rows), self.base.vocab_size), dtype=torch.float64, device=rows.device
        )
        for part in in_parts(*found.shape):
            found[part] = self._log_probs(rows[part], columns[part])
        return found

    def _log_probs(
        self, rows: Int[Tensor, " C"], columns: Int[Tensor, " C"]
    ) -> Float[Tensor, "C V"]:
        return self.draw.log_probs(self.base.unembed(self.prediction.hidden[rows, columns]))

    def constant(self, cells: Bool[Tensor, "B L"], tokens: Int[Tensor, "B 1"]) -> Commit:
        """Write one row's token into all of its cells; nothing is drawn, so log-probabilities are 0."""
        rows, columns = cells.nonzero(as_tuple=True)
        certain = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        return self.write(Commit(rows, columns, tokens[rows, 0], certain, "fill"))

    def drafting(self) -> None:
        """From here on commits are drafts: `keep_first` may take them back."""
        self._before, self._settled = self.canvas, len(self.commits)

    @property
    def drafts(self) -> list[Commit]:
        """What was written since `drafting`: the i-th of them holds the i-th token of each row."""
        return self.commits[self._settled :]

    def keep_first(self, accepted: Int[Tensor, " B"]) -> None:
        """Take back every draft of a row beyond its number of accepted ones."""
        drafts = self.drafts
        kept = [c.keep(accepted[c.rows] > depth) for depth, c in enumerate(drafts)]
        if all(len(k.rows) == len(c.rows) for k, c in zip(kept, drafts, strict=True)):
            return
        self.canvas, self.commits = self._before, self.commits[: self._settled]
        for commit in kept:
            self.write(commit)

    def _rank_all(self, cells: Bool[Tensor, "B L"]) -> None:
        """Rank the cells that were not ranked since the prediction changed.

        Only these are unembedded, and no more than `draw.CHUNK` logits exist at a time.
        """
        rows, columns = (cells & ~self._ranked).nonzero(as_tuple=True)
        for part in in_parts(len(rows), self.base.vocab_size):
            some, places = (rows[part], columns[part]), columns[part] - self.canvas.response.start
            ranks = self.order.rank(self._log_probs(*some), some[0], places, self.noise)
            self._rank[some] = ranks.double()
        self._ranked |= cells


def first_block(canvas: Canvas, block_length: int) -> Bool[Tensor, "B L"]:
    """The response columns of each row's first block with a mask in it; none in a finished row."""
    columns = torch.arange(canvas.tokens.shape[1], device=canvas.tokens.device)
    block = (columns - canvas.response.start).div(block_length, rounding_mode="floor")
    beyond = len(columns)
    first = block.expand_as(canvas.tokens).masked_fill(~canvas.masked, beyond).amin(-1, True)
    return (block == first) & (columns >= canvas.response.start)
