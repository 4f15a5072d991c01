"""The values that flow through the library.

Axes, everywhere: B rows (R of them still being decoded), L canvas columns, N response columns, P
prompt columns, D hidden size, V vocabulary, C cells (pairs of row and column), M cells of a row (N
without anchors), W consecutive states of a trajectory or the columns of one forward.

Inside the loop cells come as rectangles, M per row, with a flag for those that count: their shapes
are known to the host without a look at the device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Anchors = Mapping[int, Sequence[int]]
"""Ids that stand in a response from a column on; a negative column counts from its end."""


@dataclass(frozen=True)
class Canvas:
    """The tokens being denoised. Prompts are padded on the left, so that every row's response
    lies in the same columns."""

    tokens: Int[Tensor, "B L"]
    attends: Bool[Tensor, "B L"]
    """False on padding."""
    response: slice
    mask_id: int
    anchors: Bool[Tensor, "B L"] | None = None
    """Response cells written before decoding began and kept through it; None: there are none."""
    padded: bool | None = None
    """Whether any row may have padding, where the host knows; None: the device must be asked."""

    @classmethod
    def blank(
        cls, prompts: list[list[int]], max_new_tokens: int, *, mask_id: int, pad_id: int
    ) -> "Canvas":
        """A canvas whose responses are all masks.

        Raises ValueError for an empty prompt: a shifted model predicts its first token from the
        column before it, so there must be one (a beginning-of-text id is enough).
        """
        if any(not prompt for prompt in prompts):
            raise ValueError("a prompt has no tokens; give it at least a beginning-of-text id")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}, expected at least 1")
        width = max(map(len, prompts))
        tokens = torch.full((len(prompts), width + max_new_tokens), mask_id)
        attends = torch.ones_like(tokens, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            padding = width - len(prompt)
            tokens[row, :padding] = pad_id
            attends[row, :padding] = False
            tokens[row, padding:width] = torch.tensor(prompt)
        padded = any(len(prompt) < width for prompt in prompts)
        response = slice(width, width + max_new_tokens)
        return cls(tokens, attends, response, mask_id, padded=padded)

    @cached_property
    def masked(self) -> Bool[Tensor, "B L"]:
        """The cells still to be written: masks inside the response. A prompt may quote the mask."""
        inside = self.tokens[:, self.response] == self.mask_id
        around = (self.response.start, self.tokens.shape[1] - self.response.stop)
        return torch.nn.functional.pad(inside, around)

    @cached_property
    def positions(self) -> Int[Tensor, "B L"]:
        """Position of every column, counted from the row's first real token."""
        return (self.attends.long().cumsum(-1) - 1).clamp(min=0)

    def anchor(self, anchors: Anchors | Sequence[Anchors]) -> "Canvas":
        """The canvas with fixed tokens: the same in every row, or each row's own.

        Raises ValueError if they do not fit into the response, overlap, leave a row with nothing to
        write, or are of another number of rows.
        """
        rows = [anchors] * len(self.tokens) if isinstance(anchors, Mapping) else anchors
        if len(rows) != len(self.tokens):
            raise ValueError(f"anchors of {len(rows)} rows on a canvas of {len(self.tokens)}")
        written = torch.zeros(self.tokens.shape, dtype=torch.long)
        fixed = torch.zeros(self.tokens.shape, dtype=torch.bool)
        for row, own in enumerate(rows):
            for column, ids in own.items():
                place = self._place(column, len(ids))
                if bool(fixed[row, place].any()):
                    raise ValueError(f"the anchor at column {column} overlaps another one")
                written[row, place], fixed[row, place] = torch.tensor(ids), True
        fixed = fixed.to(self.tokens.device)
        tokens = torch.where(fixed, written.to(self.tokens.device), self.tokens)
        anchored = replace(self, tokens=tokens, anchors=fixed)
        if not bool(anchored.masked.any(-1).all()):
            raise ValueError("the anchors leave no column to write")
        return anchored

    def _place(self, column: int, count: int) -> slice:
        """The canvas columns of an anchor of so many tokens at a response column."""
        length = self.response.stop - self.response.start
        first = column if column >= 0 else length + column
        if first < 0 or first + count > length:
            raise ValueError(
                f"an anchor of {count} tokens at column {column} does not fit into a "
                f"response of {length}"
            )
        begin = self.response.start + first
        return slice(begin, begin + count)

    def write(self, commit: "Commit") -> "Canvas":
        """The canvas with the commit's tokens in place."""
        kept = self.tokens.gather(1, commit.columns)
        tokens = torch.where(commit.written, commit.tokens, kept)
        written = replace(self, tokens=self.tokens.scatter(1, commit.columns, tokens))
        written.__dict__["positions"] = self.positions  # nothing moves
        return written

    def select(self, rows: Bool[Tensor, " B"] | Int[Tensor, " R"]) -> "Canvas":
        """Some of the rows, in a canvas of their own."""
        anchors = None if self.anchors is None else self.anchors[rows]
        return replace(self, tokens=self.tokens[rows], attends=self.attends[rows], anchors=anchors)

    def put(self, rows: Int[Tensor, " R"], canvas: "Canvas") -> "Canvas":
        """The canvas with some rows as they are in a canvas of their own."""
        return replace(self, tokens=self.tokens.index_copy(0, rows, canvas.tokens))

    def to(self, device: torch.device | str) -> "Canvas":
        """The same canvas on another device."""
        anchors = None if self.anchors is None else self.anchors.to(device)
        return replace(
            self, tokens=self.tokens.to(device), attends=self.attends.to(device), anchors=anchors
        )


@dataclass(frozen=True)
class Commit:
    """Tokens written for good: up to M per row, in the order they are written in."""

    columns: Int[Tensor, "B M"]
    """Canvas columns, all different within a row."""
    tokens: Int[Tensor, "B M"]
    log_probs: Float[Tensor, "B M"]
    """Nats, under the distribution each token was drawn from."""
    written: Bool[Tensor, "B M"]
    """Whether the entry counts; the others mean nothing."""
    writer: Literal["base", "sampler", "fill", "end"] = "base"
    """Whose distribution that was: the base's own, a joint sampler's, or an early finish's; an `end`'s
    tokens are what follows a text that has ended, and no part of it."""

    @classmethod
    def of_rows(
        cls,
        columns: Int[Tensor, " B"],
        tokens: Int[Tensor, " B"],
        log_probs: Float[Tensor, " B"] | None = None,
    ) -> "Commit":
        """One token in every row; without log-probabilities they are 0, as of what is given."""
        if log_probs is None:
            log_probs = torch.zeros_like(columns, dtype=torch.float32)
        written = torch.ones_like(columns, dtype=torch.bool)
        return cls(columns[:, None], tokens[:, None], log_probs[:, None], written[:, None])

    def among(self, rows: Int[Tensor, " B"], count: int) -> "Commit":
        """The same in a batch of `count` rows, in which row r of this one is `rows[r]`; the others
        have nothing written."""

        def spread(part: Tensor) -> Tensor:
            return part.new_zeros(count, part.shape[1]).index_copy(0, rows, part)

        return Commit(
            spread(self.columns),
            spread(self.tokens),
            spread(self.log_probs),
            spread(self.written),
            self.writer,
        )

    def keep(self, wanted: Bool[Tensor, "B M"]) -> "Commit":
        """Some of the entries."""
        return replace(self, written=self.written & wanted)

    def entries(self) -> list[list[tuple[int, int, float]]]:
        """Per row, column, token and log-probability of what was written, on the host."""
        parts = (self.columns, self.tokens, self.log_probs, self.written)
        lists = zip(*(part.tolist() for part in parts), strict=True)
        return [[entry[:3] for entry in zip(*row, strict=True) if entry[3]] for row in lists]


@dataclass(frozen=True)
class Prediction:
    """What the base says about a canvas, aligned: entry i is about column i."""

    hidden: Float[Tensor, "B C D"]
    """Last hidden states of all columns, or, from a memory that grows with the text, of the first C,
    behind which none is computed yet; where not `fresh` they may be older than the canvas."""
    fresh: Bool[Tensor, "B L"]
    """The cells computed from this canvas."""


@dataclass(frozen=True)
class Step:
    """One base forward and everything committed because of it."""

    canvas: Canvas
    """After the commits."""
    commits: tuple[Commit, ...]
    forwards: Int[Tensor, " B"]
    """Base forwards spent on each row: 0 once it was finished, 2 under classifier-free guidance."""
    passes: Int[Tensor, " B"]
    """Sampler passes spent on each row."""
    guide_passes: Int[Tensor, " B"]
    """Forwards of a guiding model spent on each row."""
    columns: Int[Tensor, " B"]
    """Canvas columns renewed for each row, padding not counted; 0 once it was finished."""
    canvases: Int[Tensor, " B"]
    """Canvases the forwards were about: as many as there were, unless drafts are verified."""
    refused: Commit | None = None
    """Drafts that were taken back, where that is told."""

    @property
    def written(self) -> Int[Tensor, " B"]:
        """Tokens committed to each row, without what follows a text that has ended."""
        counts = [commit.written.sum(-1) for commit in self.commits if commit.writer != "end"]
        return torch.stack(counts).sum(0) if counts else torch.zeros_like(self.forwards)


@dataclass(frozen=True)
class Trajectory:
    """A finished response and the order it was written in: 2N integers, from which every canvas
    on the way can be rebuilt."""

    example_id: int
    prompt: Int[Tensor, " P"]
    response: Int[Tensor, " N"]
    order: Int[Tensor, " M"]
    """order[s] is the response column written by commit number s; anchors were never written."""
    log_probs: Float[Tensor, " M"]
    """log_probs[s]: nats, of commit number s under the distribution it was drawn from."""

    @property
    def anchored(self) -> int:
        """Columns up to and with the last anchor's; 0 without one."""
        fixed = torch.ones(len(self.response), dtype=torch.bool)
        fixed[self.order] = False
        columns = fixed.nonzero()
        return int(columns[-1]) + 1 if len(columns) else 0

    def state(self, step: int, mask_id: int) -> Int[Tensor, " N"]:
        """The response after `step` commits: everything later in the order is still a mask."""
        response = self.response.clone()
        response[self.order[step:]] = mask_id
        return response
