"""The values that flow through the library.

Axes, everywhere: B rows (R of them still being decoded), L canvas columns, N response columns, P
prompt columns, D hidden size, V vocabulary, C cells (pairs of row and column), M cells to write (N
without anchors), W consecutive states of a trajectory or the columns of one forward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


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
        return cls(tokens, attends, slice(width, width + max_new_tokens), mask_id)

    @property
    def masked(self) -> Bool[Tensor, "B L"]:
        """The cells still to be written: masks inside the response. A prompt may quote the mask."""
        inside = torch.zeros_like(self.attends)
        inside[:, self.response] = True
        return (self.tokens == self.mask_id) & inside

    @property
    def positions(self) -> Int[Tensor, "B L"]:
        """Position of every column, counted from the row's first real token."""
        return (self.attends.long().cumsum(-1) - 1).clamp(min=0)

    def anchor(self, columns: Mapping[int, Sequence[int]]) -> "Canvas":
        """The canvas with fixed tokens in every row: response column (negative: from its end) to
        the ids that begin there.

        Raises ValueError if they do not fit into the response, overlap, or leave nothing to write.
        """
        length = self.response.stop - self.response.start
        tokens = self.tokens.clone()
        anchors = torch.zeros_like(self.attends)
        for column, ids in columns.items():
            first = column if column >= 0 else length + column
            if first < 0 or first + len(ids) > length:
                raise ValueError(
                    f"an anchor of {len(ids)} tokens at column {column} does not fit into a "
                    f"response of {length}"
                )
            place = slice(self.response.start + first, self.response.start + first + len(ids))
            if bool(anchors[:, place].any()):
                raise ValueError(f"the anchor at column {column} overlaps another one")
            tokens[:, place] = torch.tensor(ids, device=tokens.device)
            anchors[:, place] = True
        anchored = replace(self, tokens=tokens, anchors=anchors)
        if not bool(anchored.masked.any()):
            raise ValueError("the anchors leave no column to write")
        return anchored

    def write(self, commit: "Commit") -> "Canvas":
        """The canvas with the commit's tokens in place."""
        tokens = self.tokens.clone()
        tokens[commit.rows, commit.columns] = commit.tokens
        return replace(self, tokens=tokens)

    def select(self, rows: Bool[Tensor, " B"]) -> "Canvas":
        """Some of the rows, in a canvas of their own."""
        anchors = None if self.anchors is None else self.anchors[rows]
        return replace(self, tokens=self.tokens[rows], attends=self.attends[rows], anchors=anchors)

    def to(self, device: torch.device | str) -> "Canvas":
        """The same canvas on another device."""
        anchors = None if self.anchors is None else self.anchors.to(device)
        return replace(
            self, tokens=self.tokens.to(device), attends=self.attends.to(device), anchors=anchors
        )


@dataclass(frozen=True)
class Commit:
    """Tokens written for good, one entry per cell."""

    rows: Int[Tensor, " C"]
    columns: Int[Tensor, " C"]
    tokens: Int[Tensor, " C"]
    log_probs: Float[Tensor, " C"]
    """Nats, under the distribution each token was drawn from."""
    writer: Literal["base", "sampler", "fill"] = "base"
    """Whose distribution that was: the base's own, a joint sampler's, or an early finish's."""

    def renumber(self, rows: Int[Tensor, " B"]) -> "Commit":
        """The same on a larger canvas, in which row r of this one is `rows[r]`."""
        return replace(self, rows=rows[self.rows])

    def keep(self, wanted: Bool[Tensor, " C"]) -> "Commit":
        """Some of the entries."""
        parts = (self.rows, self.columns, self.tokens, self.log_probs)
        return Commit(*(part[wanted] for part in parts), writer=self.writer)


@dataclass(frozen=True)
class Prediction:
    """What the base says about a canvas, aligned: entry i is about column i."""

    hidden: Float[Tensor, "B L D"]
    """Last hidden states of all columns; where not `fresh` they may be older than the canvas."""
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
