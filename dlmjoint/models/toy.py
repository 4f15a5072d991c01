"""A base whose joint distribution is a table: what is exact can be computed, not estimated."""

import hashlib

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.models.base import Base
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas, Prediction

IMPOSSIBLE = -1e9
"""A log-probability that is zero in every dtype, and finite."""


class TableModel(Base):
    """The explicit joint of N tokens from a vocabulary of V; prompts do not matter.

    Its predictions are the table's true conditional marginals, so one token per forward draws from
    the table itself. Ids 0 .. V - 1 are text, V is beginning- and end-of-text, V + 1 the mask.
    """

    def __init__(self, joint: Tensor) -> None:
        self.joint = (joint / joint.sum()).double()
        values = joint.shape[0]
        self.name, self.revision, self.tokenizer = f"table of {tuple(joint.shape)}", None, None
        self.eos_id = self.bos_id = self.pad_id = values
        self.mask_id = values + 1
        self.vocab_size = self.hidden_size = values + 2
        self.max_length = 64 + joint.ndim
        self._seen: dict[tuple[int, ...], Tensor] = {}
        self.device, self.dtype = torch.device("cpu"), torch.float32

    @classmethod
    def random(cls, seed: int = 0) -> "TableModel":
        """Three columns of three tokens, strongly dependent: most of 27 cells are nearly empty."""
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.randn(3, 3, 3, generator=generator).mul(2).exp())

    def predict(
        self,
        canvas: Canvas,
        renew: Bool[Tensor, "B L"] | None = None,
        memory: CanvasMemory | None = None,
    ) -> Prediction:
        """The conditional log-marginals of every response column; there is nothing to reuse."""
        length = canvas.tokens.shape[1]
        hidden = torch.full((len(canvas.tokens), length, self.vocab_size), IMPOSSIBLE)
        for row, response in enumerate(canvas.tokens[:, canvas.response].tolist()):
            hidden[row, canvas.response] = self._marginals(tuple(response))
        return Prediction(hidden, torch.ones_like(canvas.attends) if renew is None else renew)

    def _marginals(self, response: tuple[int, ...]) -> Float[Tensor, "N V"]:
        """Log-probability of every token in every column, given the columns already written."""
        if response not in self._seen:  # of a table that can be enumerated there are few
            self._seen[response] = self._computed(response)
        return self._seen[response]

    def _computed(self, response: tuple[int, ...]) -> Float[Tensor, "N V"]:
        rows = torch.full((self.joint.ndim, self.vocab_size), IMPOSSIBLE)
        table = self.joint
        for column, token in enumerate(response):
            if token != self.mask_id:
                keep = torch.zeros(self.joint.shape[column], dtype=torch.float64)
                keep[token] = 1
                table = table * keep.view(-1, *[1] * (self.joint.ndim - 1 - column))
        for column in range(self.joint.ndim):
            others = [axis for axis in range(self.joint.ndim) if axis != column]
            marginal = table.sum(others) / table.sum()
            rows[column, : len(marginal)] = marginal.log().clamp(min=IMPOSSIBLE).float()
        return rows

    def embed(self, tokens: Int[Tensor, "*cells"]) -> Float[Tensor, "*cells D"]:
        """One-hot."""
        return torch.nn.functional.one_hot(tokens, self.vocab_size).float()

    def unembed(self, hidden: Float[Tensor, "*cells D"]) -> Float[Tensor, "*cells V"]:
        """Hidden states are log-probabilities already."""
        return hidden

    @property
    def fingerprint(self) -> str:
        """Hash of the table."""
        return hashlib.sha256(self.joint.numpy().tobytes()).hexdigest()[:16]
