"""The values that flow through the library.

Axes, everywhere: B rows, L canvas columns, N response columns, P prompt columns, D hidden size,
V vocabulary, C cells (pairs of row and column), W consecutive states of a trajectory.
"""

from dataclasses import dataclass, replace

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

    def write(self, commit: "Commit") -> "Canvas":
        """The canvas with the commit's tokens in place."""
        tokens = self.tokens.clone()
        tokens[commit.rows, commit.columns] = commit.tokens
        return replace(self, tokens=tokens)

    def to(self, device: torch.device | str) -> "Canvas":
        """The same canvas on another device."""
        return replace(self, tokens=self.tokens.to(device), attends=self.attends.to(device))


@dataclass(frozen=True)
class Commit:
    """Tokens written for good, one entry per cell."""

    rows: Int[Tensor, " C"]
    columns: Int[Tensor, " C"]
    tokens: Int[Tensor, " C"]
    log_probs: Float[Tensor, " C"]
    """Nats, under the distribution each token was drawn from."""


@dataclass(frozen=True)
class Prediction:
    """What the base says about a canvas, aligned: entry i is about column i."""

    hidden: Float[Tensor, "B L D"]
    """Last hidden states of all columns; columns outside the window may be older than the canvas."""
    window: slice
    """The columns computed from this canvas."""


@dataclass(frozen=True)
class Step:
    """One base forward and everything committed because of it."""

    canvas: Canvas
    """After the commits."""
    commits: tuple[Commit, ...]
    forwards: Int[Tensor, " B"]
    """1 for every row this forward was needed for, 0 for rows already finished."""
    passes: Int[Tensor, " B"]
    """Sampler passes spent on each row."""
    window: slice
    """The columns the base recomputed."""


@dataclass(frozen=True)
class Trajectory:
    """A finished response and the order it was written in: 2N integers, from which every canvas
    on the way can be rebuilt."""

    example_id: int
    prompt: Int[Tensor, " P"]
    response: Int[Tensor, " N"]
    order: Int[Tensor, " N"]
    """order[s] is the response column written by commit number s."""
    log_probs: Float[Tensor, " N"]
    """log_probs[s]: nats, of commit number s under the distribution it was drawn from."""

    def state(self, step: int, mask_id: int) -> Int[Tensor, " N"]:
        """The response after `step` commits: everything later in the order is still a mask."""
        response = self.response.clone()
        response[self.order[step:]] = mask_id
        return response
