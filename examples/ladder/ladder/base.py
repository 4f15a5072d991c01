"""A base without a network: letters, of which each mostly is the alphabet's next one."""

from string import ascii_lowercase as LETTERS
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.types import Canvas, Prediction

IMPOSSIBLE = -1e9
"""A log-probability that is zero in every dtype, and finite."""


class Ladder(Base):
    """A Markov chain over 26 letters, `a` following `z`; ids 26 and 27 are end-of-text and the mask.

    A letter is the next one with probability `climb`, else any. Predictions are the chain's true
    marginals given all letters already written, on both sides: one token per forward is exact.
    """

    def __init__(self, climb: float) -> None:
        if not 0 <= climb < 1:
            raise ConfigError(f"climb is {climb}, expected 0 or more and less than 1")
        self.climb = climb
        self.name, self.revision, self.tokenizer = f"Ladder({climb})", None, _tokenizer()
        self.eos_id = self.bos_id = self.pad_id = len(LETTERS)
        self.mask_id = len(LETTERS) + 1
        self.vocab_size = self.hidden_size = len(LETTERS) + 2
        self.max_length = 512
        self.device, self.dtype = torch.device("cpu"), torch.float32
        upwards = torch.eye(len(LETTERS), dtype=torch.float64).roll(1, 1)
        self.chain = climb * upwards + (1 - climb) / len(LETTERS)
        """chain[i, j] is the probability of letter j behind letter i."""

    @classmethod
    def load(cls, where: str, **_settings: Any) -> "Ladder":
        """What `base: ladder.base.Ladder:0.9` asks for. There are no weights, so device, dtype,
        revision and loading change nothing."""
        try:
            return cls(float(where))
        except ValueError as error:
            raise ConfigError(
                f"{where!r} is no probability: name ladder.base.Ladder:0.9"
            ) from error

    @classmethod
    def random(cls, seed: int = 0) -> "Ladder":
        """A chain of some probability."""
        return cls(float(torch.rand((), generator=torch.Generator().manual_seed(seed))))

    def predict(
        self, canvas: Canvas, renew: Tensor | None = None, memory: object | None = None
    ) -> Prediction:
        """Log-marginals of every response column; there is nothing a memory would spare."""
        rows, length = canvas.tokens.shape
        hidden = torch.full((rows, length, self.vocab_size), IMPOSSIBLE)
        start = canvas.response.start
        marginals = self._marginals(canvas.tokens[:, start - 1 : canvas.response.stop])
        hidden[:, start:, : len(LETTERS)] = marginals[:, 1:].log().clamp(min=IMPOSSIBLE).float()
        return Prediction(hidden, torch.ones_like(canvas.attends) if renew is None else renew)

    def _marginals(self, tokens: Tensor) -> Tensor:
        """Of all columns, by the forward-backward recursion; what is no letter says nothing."""
        known = tokens < len(LETTERS)
        seen = torch.nn.functional.one_hot(tokens.clamp(max=len(LETTERS) - 1), len(LETTERS))
        seen = torch.where(known[..., None], seen, 1).double()
        before, behind = [seen[:, 0]], [torch.ones_like(seen[:, 0])]
        for column in range(1, tokens.shape[1]):
            before.append(_normed(before[-1] @ self.chain) * seen[:, column])
            behind.append(_normed((behind[-1] * seen[:, -column]) @ self.chain.T))
        return _normed(torch.stack(before, 1) * torch.stack(behind[::-1], 1))

    def embed(self, tokens: Tensor) -> Tensor:
        """One-hot."""
        return torch.nn.functional.one_hot(tokens, self.vocab_size).float()

    def unembed(self, hidden: Tensor) -> Tensor:
        """Hidden states are log-probabilities already."""
        return hidden

    @property
    def fingerprint(self) -> str:
        """There is one weight."""
        return f"climb {self.climb}"

    def encode(self, text: str) -> list[int]:
        """A letter is a token. Raises ConfigError for what is no letter."""
        if unknown := set(text) - set(LETTERS):
            raise ConfigError(f"this base knows the letters a to z, not {sorted(unknown)}")
        return super().encode(text)


def _tokenizer() -> PreTrainedTokenizerFast:
    ids = {token: index for index, token in enumerate([*LETTERS, "<end>", "<mask>"])}
    letters = Tokenizer(WordLevel(ids, unk_token="<end>"))
    letters.pre_tokenizer, letters.decoder = Split("", "isolated"), Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=letters, eos_token="<end>", pad_token="<end>", mask_token="<mask>"
    )


def _normed(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)
