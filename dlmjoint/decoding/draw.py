"""Which token there: forbidden ids, temperature, top-p. The one place where ids are forbidden."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.random import Noise

CHUNK = 1 << 24
"""Logits worked on at once. In float64, with what log-softmax and entropies need beside them, that is
17 bytes each (0.27 GiB), with top-p, which sorts, 34. The head is read once per chunk: 110 cells of
152,064 words."""


@dataclass(frozen=True)
class Draw:
    """The distribution tokens are drawn from; orders rank this same distribution."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most probable token (and ranks at temperature 1)."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability exceeds this."""
    forbid: tuple[int | str, ...] = ()
    """Further ids or token strings never to write, such as `<|endoftext|>` in unconditional runs.
    In Dream end-of-text and padding are one id: forbidding it forbids short answers."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}, expected 0 or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}, expected more than 0 and at most 1")

    def prepare(self, base: Base) -> "Draw":
        """The same draw with all ids resolved: the base's own forbidden ids and this run's."""
        own = {_token_id(base, token) for token in self.forbid}
        return replace(self, forbid=tuple(sorted(own | set(base.forbidden_ids))))

    def log_probs(self, logits: Float[Tensor, "*cells V"]) -> Float[Tensor, "*cells V"]:
        """Normalised log-probabilities in float64: at float32 a peaked distribution's entropy is
        rounding error, and orders would depend on the batch."""
        logits = forbid(logits, self.forbid).double()
        if self.temperature not in (0, 1):
            logits /= self.temperature
        if self.top_p < 1:
            logits = _nucleus(logits, self.top_p)
        return logits.log_softmax(-1)

    def pick(
        self,
        log_probs: Float[Tensor, "C V"],
        rows: Int[Tensor, " C"],
        columns: Int[Tensor, " C"],
        noise: Noise,
    ) -> Int[Tensor, " C"]:
        """One token per cell; `columns` count from the response's first."""
        if self.temperature == 0:
            return log_probs.argmax(-1)
        tokens = torch.empty_like(rows)
        for part in in_parts(len(rows), log_probs.shape[-1]):
            perturbed = noise.gumbel(rows[part], columns[part], log_probs.shape[-1])
            tokens[part] = perturbed.to(log_probs.device).add_(log_probs[part]).argmax(-1)
        return tokens


def in_parts(cells: int, vocab_size: int) -> Iterator[slice]:
    """Slices of so many cells, each of at most `CHUNK` logits and at least one cell's."""
    step = max(1, CHUNK // vocab_size)
    return (slice(first, first + step) for first in range(0, cells, step))


def forbid(
    logits: Float[Tensor, "*cells V"], ids: Sequence[int | str]
) -> Float[Tensor, "*cells V"]:
    """The logits with some ids made impossible. Called after every head call, sampler's included."""
    impossible = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    impossible[torch.tensor(ids, dtype=torch.long)] = True
    return logits.masked_fill(impossible, -torch.inf)


def _token_id(base: Base, token: int | str) -> int:
    """An id as it is, a token string looked up. Raises ConfigError if the tokenizer lacks it."""
    if isinstance(token, int):
        return token
    known = {} if base.tokenizer is None else base.tokenizer.get_vocab()
    if token not in known:
        raise ConfigError(f"forbid names {token!r}, which is no token of {base.name}")
    return known[token]


def _nucleus(logits: Float[Tensor, "*cells V"], top_p: float) -> Float[Tensor, "*cells V"]:
    """The logits, in place, with everything outside the nucleus removed; the best token stays."""
    probs, index = logits.sort(dim=-1, descending=True)
    probs = probs.softmax(-1)
    before = probs.cumsum(-1).sub_(probs)
    outside = torch.zeros_like(before, dtype=torch.bool).scatter_(-1, index, before > top_p)
    return logits.masked_fill_(outside, -torch.inf)
