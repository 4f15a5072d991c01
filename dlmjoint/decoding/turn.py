"""One base forward being turned into commits: the desk that schedules, early rules and guides share."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.decoding.draw import Draw, in_parts
from dlmjoint.decoding.looks.cells import Cells, Grid, columns_of
from dlmjoint.decoding.looks.look import Look, look_at, raw_gap
from dlmjoint.decoding.looks.sent import least, sent
from dlmjoint.decoding.order import Order
from dlmjoint.decoding.refine import Refine
from dlmjoint.models.base import Base
from dlmjoint.models.parts.canvas_cache import Prefix
from dlmjoint.random import Noise
from dlmjoint.types import Canvas, Commit, Prediction, Step


@dataclass
class Turn:
    """The state between two base forwards. Rows never mix."""

    base: Base
    order: Order
    draw: Draw
    refine: Refine
    grid: Grid | None
    noise: Noise
    forward: int | Int[Tensor, " B"]
    """Number of this forward, from 0; of each row, if drafts are checked several forwards at once."""
    canvas: Canvas
    """As it is now, with this turn's commits."""
    prediction: Prediction
    """What is known about it: the base's, or the sampler's where it was improved."""
    prefix: Prefix | None = None
    """What the sampler remembers of finished blocks."""
    within: Bool[Tensor, "B L"] | None = None
    """The cells this forward is about, in a base that writes block after block; None: all."""
    watched: Bool[Tensor, "B L"] | None = None
    """Cells whose gap between the two greatest raw logits somebody reads."""
    commits: list[Commit] = field(default_factory=list)
    refused: Commit | None = None
    """The drafts that were taken back."""
    forwards: Int[Tensor, " B"] = field(init=False)
    """Base forwards spent on each row in this turn."""
    canvases: Int[Tensor, " B"] = field(init=False)
    """Canvases they were about."""
    columns: Int[Tensor, " B"] = field(init=False)
    """Canvas columns they renewed, padding not counted."""
    passes: Int[Tensor, " B"] = field(init=False)
    """Sampler passes."""
    guide_passes: Int[Tensor, " B"] = field(init=False)
    """Forwards of a guiding model."""
    asked: Canvas = field(init=False)
    """As it was when the base was asked."""
    told: Prediction = field(init=False)
    """What the base said about it."""
    reviewed: bool = field(default=False, init=False)
    """Whether somebody may have taken drafts back."""
    before: Canvas = field(init=False)
    """As it was before the drafts."""
    finished: int = field(default=0, init=False)
    """Rows that were finished in this turn, as far as the host knows."""

    def __post_init__(self) -> None:
        tokens = self.canvas.tokens
        self._rows = sent(tuple(range(len(tokens))), tokens.device)
        none = sent((0,) * len(tokens), tokens.device)
        self.forwards = self.canvases = self.columns = self.passes = self.guide_passes = none
        self.asked, self.told = self.canvas, self.prediction
        self._seen: Cells | None = None
        self.drafting()

    def open(self) -> Bool[Tensor, "B L"]:
        """The cells that may be written: masks computed in this forward, in the row's first
        unfinished block."""
        cells = self.canvas.masked & self.prediction.fresh
        if self.within is not None:
            return cells & self.within
        return cells if self.grid is None else cells & self.grid.first(self.canvas)

    @property
    def left(self) -> Bool[Tensor, "B L"]:
        """The masks an early rule may fill: all of the row's, or its block's in a base that writes
        block after block."""
        return self.canvas.masked if self.within is None else self.canvas.masked & self.within

    @property
    def over(self) -> bool:
        """Whether the host knows that every row is finished, and not its block alone."""
        return self.within is None and self.finished == len(self.passes)

    def look(self, cells: Bool[Tensor, "B L"], most: int) -> None:
        """Take the watched cells and these, at most so many per row, in one look, whoever reads it."""
        wanted = cells if self.watched is None else cells | self.watched
        self._seen = self._cells(cells, self._columns(wanted, most), self._rows)

    def cells(
        self, cells: Bool[Tensor, "B L"], most: int, rows: Int[Tensor, " R"] | None = None
    ) -> Cells:
        """Cells, at most so many per row, as a rectangle; of some rows only, if these are given. What
        was seen in a first look is not looked at again."""
        if self._seen is not None and rows is None:
            return self._seen.opened(cells.gather(1, self._seen.columns))
        if rows is None:
            return self._cells(cells, self._columns(cells, most), self._rows)
        return self._cells(cells[rows], self._columns(cells[rows], most), rows)

    def one(self, columns: Int[Tensor, "B 1"]) -> Cells:
        """One cell of every row, which may be written if it is a mask."""
        return self._cells(self.canvas.masked, columns, self._rows)

    def _columns(self, cells: Bool[Tensor, "B L"], most: int) -> Int[Tensor, "B M"]:
        """A rectangle that holds these cells. It is filled up with columns of the response: nothing is
        drawn elsewhere, so there is no noise."""
        return columns_of(cells[:, self.canvas.response], most) + self.canvas.response.start

    def _cells(self, cells: Tensor, columns: Tensor, rows: Tensor) -> Cells:
        start = self.canvas.response.start
        return Cells(rows, columns, cells.gather(1, columns), start, self._reading())

    def gaps(self, cells: Bool[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """The difference of the two greatest raw logits in these cells, which are watched; 0 in all
        others."""
        if self.watched is None or self._seen is None:
            self.watched = cells
            self.look(cells, int(cells.sum(-1).max()))
        assert self._seen is not None
        gaps = torch.zeros_like(cells, dtype=torch.float32)
        gap = self._seen.look.gap
        assert gap is not None  # it was watched
        return gaps.scatter(1, self._seen.columns, gap).masked_fill(~cells, 0)

    def first(self, cells: Cells, count: int) -> Cells:
        """The first `count` open cells of every row in the order in which they are written; behind
        them come cells that are not open."""
        rank = self.order.rank(cells, self.noise)
        rank = torch.where(cells.open, rank, least(rank.device))
        if count == 1:
            return cells.at(rank.argmax(-1, keepdim=True))
        best = rank.sort(dim=-1, descending=True, stable=True).indices
        if self.grid is not None and not self.grid.own:
            block = self.grid.numbers(self.canvas)[cells.rows].gather(1, cells.columns)
            later = block.masked_fill(~cells.open, self.canvas.tokens.shape[1]).gather(1, best)
            best = best.gather(1, later.sort(dim=-1, stable=True).indices)
        return cells.at(best[:, :count])

    def commit(self, cells: Cells, writer: Literal["base", "sampler"] = "base") -> Commit:
        """Draw a token for each open cell and write it."""
        if self.draw.greedy:
            tokens, log_probs = cells.look.best, cells.look.log_best
        else:
            tokens, log_probs = self._drawn(cells)
        return self.write(Commit(cells.columns, tokens, log_probs, cells.open, writer), cells.rows)

    def fill(self, cells: Bool[Tensor, "B L"]) -> int:
        """Write the most probable token into every one of these cells, from left to right; the number
        of rows that have any. The host asks the device once."""
        rows, most = self.ask(cells.sum(-1))
        if len(rows):
            some = self.cells(cells, most, rows)
            look = some.look
            commit = Commit(some.columns, look.best, look.log_best, some.open, "fill")
            self.write(commit, rows)
        return len(rows)

    def ask(self, counts: Int[Tensor, " B"] | Bool[Tensor, " B"]) -> tuple[Int[Tensor, " R"], int]:
        """The rows whose count is not 0, and the greatest count: one question to the device."""
        some = counts > 0
        number, most = torch.stack([some.sum(), counts.max()]).tolist()
        return columns_of(some[None], number)[0], most

    def constant(
        self,
        cells: Bool[Tensor, "B L"],
        tokens: Int[Tensor, "B 1"],
        writer: Literal["fill", "end"] = "fill",
    ) -> Commit:
        """Write one row's token into all of its cells; nothing is drawn, so log-probabilities are 0."""
        columns = torch.arange(cells.shape[1], device=cells.device)[self.canvas.response]
        written = cells[:, self.canvas.response]
        certain = torch.zeros_like(written, dtype=torch.float32)
        own = tokens.expand_as(written)
        return self.write(Commit(columns.expand_as(written), own, certain, written, writer))

    def write(self, commit: Commit, rows: Int[Tensor, " R"] | None = None) -> Commit:
        """Put a commit on the canvas; it is of these rows, or of all."""
        if rows is not None and rows is not self._rows:
            commit = commit.among(rows, len(self.passes))
        self.commits.append(commit)
        self.canvas = self.canvas.write(commit)
        return commit

    def spend(
        self,
        forwards: int,
        renewed: Bool[Tensor, "B L"],
        going: Bool[Tensor, " B"] | None = None,
    ) -> None:
        """Count the forward of every row (two, where each is asked with and without its prompt), or of
        those that are `going`. The others have nothing renewed."""
        columns = (renewed & self.canvas.attends).sum(-1)
        made = sent((forwards,) * len(columns), columns.device)
        self.forwards = self.canvases = made if going is None else made * going
        self.columns = columns if forwards == 1 else columns * forwards

    def spend_passes(self, times: Int[Tensor, " B"] | Bool[Tensor, " B"]) -> None:
        """Count what `improve` costs, so many times for each row."""
        passes = self.refine.passes
        self.passes = self.passes + (times if passes == 1 else passes * times)

    def improve(self, rows: Int[Tensor, " R"] | None = None) -> None:
        """Renew the prediction after commits, by one sampler pass where there is a sampler: of these
        rows, or of all."""
        old = self.prediction
        known = old if rows is None else Prediction(old.hidden[rows], old.fresh[rows])
        canvas = self.canvas if rows is None else self.canvas.select(rows)
        kept = ()
        if self.prefix is not None:
            kept = (self.prefix if rows is None else self.prefix.take(rows),)
        renewed = self.refine(self.base, known, canvas, *kept)
        if renewed is known:
            return
        hidden = renewed.hidden
        if rows is not None:
            hidden = old.hidden.to(hidden.dtype).index_copy(0, rows, hidden)
        self.prediction, self._seen = Prediction(hidden, old.fresh), None

    def log_probs(
        self, rows: Int[Tensor, " C"], columns: Int[Tensor, " C"]
    ) -> Float[Tensor, "C V"]:
        """The whole distributions that some cells' tokens are drawn from, float64: for measuring;
        decoding reads its looks."""
        return self.draw.log_probs(self.base.unembed(self.prediction.hidden[rows, columns]))

    def _reading(self) -> "Reading":
        """Of the prediction as it is now."""
        watched = self.watched is not None
        return Reading(self.base, self.draw, self.prediction.hidden, watched)

    def _drawn(self, cells: Cells) -> tuple[Int[Tensor, "B M"], Float[Tensor, "B M"]]:
        """A token for each cell and its log-probability."""
        draw, captured = self.draw, self.base.captured
        drawn = [
            draw.write(draw.shape(logits), rows, columns - cells.start, self.noise, captured)
            for rows, columns, logits in self._reading().logits(cells.rows[:, None], cells.columns)
        ]
        if len(drawn) == 1 and drawn[0][0].shape == cells.columns.shape:
            return drawn[0]
        tokens, log_probs = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        return tokens.view(cells.columns.shape), log_probs.view(cells.columns.shape)

    def drafting(self) -> None:
        """From here on commits are drafts: they may be taken back."""
        self.before, self._settled = self.canvas, len(self.commits)

    @property
    def drafts(self) -> Commit | None:
        """What was written since `drafting`, as one commit; None if that is nothing."""
        drafts = self.commits[self._settled :]
        if not drafts:
            return None
        return Commit(
            torch.cat([draft.columns for draft in drafts], 1),
            torch.cat([draft.tokens for draft in drafts], 1),
            torch.cat([draft.log_probs for draft in drafts], 1),
            torch.cat([draft.written for draft in drafts], 1),
        )

    def keep_first(self, accepted: Int[Tensor, " B"]) -> None:
        """Take back every draft of a row beyond its number of accepted ones."""
        drafts, self.commits = self.commits[self._settled :], self.commits[: self._settled]
        self.reviewed = True
        self.canvas, before = self.before, torch.zeros_like(accepted)
        for draft in drafts:
            number = before[:, None] + draft.written.cumsum(-1)
            before = number[:, -1]
            self.write(draft.keep(number <= accepted[:, None]))

    def settle(self, commit: Commit, refused: Commit) -> None:
        """Put this in the place of all drafts; `refused` is what is taken back of them."""
        self.commits, self.canvas = self.commits[: self._settled], self.before
        self.refused, self.reviewed = refused, True
        self.write(commit)

    def step(self, canvas: Canvas, rows: Int[Tensor, " R"]) -> Step:
        """The finished turn, of all rows of a canvas; those that are not in it cost nothing."""
        count = len(canvas.tokens)
        commits, refused = tuple(self.commits), self.refused
        costs = [self.forwards, self.passes, self.guide_passes, self.columns, self.canvases]
        if len(rows) < count:
            commits = tuple(commit.among(rows, count) for commit in commits)
            refused = None if refused is None else refused.among(rows, count)
            none = torch.zeros_like(canvas.tokens[:, 0])
            costs = [none.index_copy(0, rows, cost) for cost in costs]
        forwards, passes, guide_passes, columns, canvases = costs
        return Step(canvas, commits, forwards, passes, guide_passes, columns, canvases, refused)


@dataclass(frozen=True)
class Reading:
    """The logits of a prediction's cells, and looks at them. Cells hold it, not their turn: a turn holds
    cells, and what it has in memory would stay in that circle until the garbage is collected."""

    base: Base
    draw: Draw
    hidden: Float[Tensor, "B L D"]
    watched: bool
    """Whether somebody reads the gap between the two greatest raw logits."""

    def __call__(self, rows: Int[Tensor, "B 1"], columns: Int[Tensor, "B M"]) -> Look:
        """A look at some cells, a chunk of logits at a time."""
        looks = []
        for _, _, logits in self.logits(rows, columns):
            gap = raw_gap(logits) if self.watched else None
            looks.append(look_at(self.draw.shape(logits), gap, self.base.captured))
        if len(looks) == 1 and looks[0].best.shape == columns.shape:
            return looks[0]
        return Look.joined(looks, lambda parts: torch.cat(parts).view(columns.shape))

    def logits(
        self, rows: Int[Tensor, "B #M"], columns: Int[Tensor, "B M"]
    ) -> Iterator[tuple[Int[Tensor, "*#cells"], Int[Tensor, "*cells"], Float[Tensor, "*cells V"]]]:
        """Rows, columns and raw logits of some cells: all at once if they fit, else part by part."""
        parts = list(in_parts(columns.numel(), self.base.vocab_size))
        if len(parts) == 1:
            yield rows, columns, self.base.unembed(self.hidden[rows, columns])
            return
        rows, columns = rows.expand_as(columns).flatten(), columns.flatten()
        for part in parts:
            some = rows[part], columns[part]
            yield *some, self.base.unembed(self.hidden[some])
