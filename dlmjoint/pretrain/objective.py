"""What the models of our own worlds are trained for: masked diffusion, or the next token."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from transformers import Qwen2ForCausalLM

from dlmjoint.models.transformer import TransformerBase
from dlmjoint.types import Canvas

CELLS = 256
"""Logits are computed for a multiple of this many cells."""
IGNORED = -100
"""The target of a cell that fills up."""


class Objective(Protocol):
    """A loss of a network on canvases that begin with a beginning-of-text."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    def loss(self, tokens: Int[Tensor, "B L"], prompts: Int[Tensor, " B"]) -> Tensor:
        """Nats per predicted token; the first `prompts` columns of a row are its question."""
        ...


@dataclass(frozen=True)
class MaskedDiffusion:
    """Masks a share t ~ U(0, 1) of each row's response and predicts it (Dream's objective with a
    constant weight instead of 1/t, which has less variance and the same optimum)."""

    base: TransformerBase
    prompted: float
    """Share of the rows that keep their question visible."""
    from_left: float
    """Share of the rows masked from the left up to a random column, as low-entropy decoding leaves
    them after it has written the end-of-text tail."""
    holed: float = 0.0
    """Share of the rows masked in one run of columns and nowhere else, as infilling begins."""

    @property
    def network(self) -> nn.Module:
        """See `Objective.network`."""
        return self.base.network

    def loss(self, tokens: Int[Tensor, "B L"], prompts: Int[Tensor, " B"]) -> Tensor:
        """See `Objective.loss`."""
        hidden_cells = self.hide(tokens, prompts)
        noisy = tokens.masked_fill(hidden_cells, self.base.mask_id)
        canvas = Canvas(
            noisy,
            torch.ones_like(noisy, dtype=torch.bool),
            slice(1, tokens.shape[1]),
            self.base.mask_id,
        )
        hidden, targets = self.base.predict(canvas).hidden[hidden_cells], tokens[hidden_cells]
        # A count that is new almost every time would have the CPU's kernels built anew every time.
        missing = -len(targets) % CELLS
        logits = self.base.unembed(pad(hidden, (0, 0, 0, missing)))
        return cross_entropy(logits.float(), pad(targets, (0, missing), value=IGNORED))

    def hide(self, tokens: Int[Tensor, "B L"], prompts: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
        """The cells to predict; never the first column."""
        rows, length = tokens.shape
        columns = torch.arange(length)
        kind = torch.rand(rows, 1)
        first = torch.where(kind[:, 0] < self.prompted, prompts, 1)[:, None]
        # Stratified over the batch: every batch sees all noise levels.
        share = ((torch.arange(rows) + torch.rand(rows)) / rows)[torch.randperm(rows), None]
        edge = torch.randint(length // 3, length + 1, (rows, 1))
        hidden_cells = torch.where(
            kind >= 1 - self.from_left, columns < edge, torch.rand(rows, length) < share
        )
        if self.holed:
            begin = torch.randint(1, length, (rows, 1))
            end = begin + torch.randint(1, length // 3, (rows, 1))
            hole = (columns >= begin) & (columns < end)
            hidden_cells = torch.where(torch.rand(rows, 1) < self.holed, hole, hidden_cells)
        return hidden_cells & (columns >= first)


@dataclass(frozen=True)
class NextToken:
    """The judge's objective: next token, up to and including the first end-of-text."""

    network: Qwen2ForCausalLM
    eos_id: int

    def loss(self, tokens: Int[Tensor, "B L"], prompts: Int[Tensor, " B"]) -> Tensor:
        """See `Objective.loss`."""
        logits = self.network(input_ids=tokens[:, :-1]).logits
        targets = tokens[:, 1:]
        wanted = (targets == self.eos_id).long().cumsum(-1) <= 1
        return cross_entropy(logits[wanted], targets[wanted])
