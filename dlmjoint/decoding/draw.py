"""Which token there: forbidden ids, temperature, top-p. The one place where ids are forbidden."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlmjoint.decoding.looks.look import odds_of, sum_of
from dlmjoint.decoding.looks.sent import sent
from dlmjoint.decoding.looks.tiles import captured_draw, in_tiles
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import IMPOSSIBLE, Base
from dlmjoint.models.parts.cast import cast
from dlmjoint.random import Noise, words

CHUNK = 1 << 24
"""Logits worked on at once: 0.4 GiB where tokens are drawn, 0.16 where the most probable is taken. The
head is read once per chunk: 110 cells of 152,064 words."""


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

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn: a look tells the token."""
        return self.temperature == 0

    def log_probs(self, logits: Float[Tensor, "*cells V"]) -> Float[Tensor, "*cells V"]:
        """Normalised log-probabilities in float64: at float32 a peaked distribution's entropy is
        rounding error, and orders would depend on the batch."""
        logits = forbid(logits, self.forbid).double()
        if self.temperature not in (0, 1):
            logits /= self.temperature
        if self.top_p < 1:
            logits = _nucleus(logits, self.top_p, -torch.inf)
        return logits.log_softmax(-1)

    def shape(self, logits: Float[Tensor, "*cells V"]) -> Float[Tensor, "*cells V"]:
        """The logits of what is drawn and ranked, float32 and finite: the same distribution as
        `log_probs`. Raw logits in float32 are written over."""
        logits = cast(logits, torch.float32)
        logits.index_fill_(-1, _ids(self.forbid, logits.device), IMPOSSIBLE)
        if self.temperature not in (0, 1):
            logits.div_(self.temperature)
        return _nucleus(logits, self.top_p) if self.top_p < 1 else logits

    def write(
        self,
        logits: Float[Tensor, "*cells V"],
        rows: Int[Tensor, "*#cells"],
        columns: Int[Tensor, "*cells"],
        noise: Noise,
        captured: bool = False,
    ) -> tuple[Int[Tensor, "*cells"], Float[Tensor, "*cells"]]:
        """One token per cell and its log-probability, from shaped logits, which it may write over unless
        it is compiled; `columns` count from the response's first."""
        if self.greedy:
            one = odds_of(logits)
            return one.best.squeeze(-1), -one.others.log1p()
        if captured:
            line = [constant.flatten(0, -2) for constant in noise.line(rows, columns)]
            tiles = in_tiles(logits)
            known = words(logits.shape[-1], logits.device).view(tiles.shape[1:])
            found = captured_draw(logits.device)(tiles, *line, known)
            tokens, log_probs = (each.view(columns.shape) for each in found)
            return tokens, log_probs
        probs = logits.softmax(-1)
        drawn = noise.exponential(rows, columns, logits.shape[-1])
        # The greatest of p / E: E comes with a minus, so the least. Where p is 0 the ratio is 0.
        tokens = torch.div(probs, drawn, out=drawn).argmin(-1, keepdim=True)
        # -log(1 + all others over p): nothing cancels, and a factor of all probabilities is left out (torch
        # adds 152,064 of them up one after the other, which costs four digits).
        own = probs.gather(-1, tokens).squeeze(-1)
        others = sum_of(probs.scatter_(-1, tokens, 0.0))
        return tokens.squeeze(-1), others.div_(own).log1p_().neg_()

    def pick(
        self,
        log_probs: Float[Tensor, "C V"],
        rows: Int[Tensor, " C"],
        columns: Int[Tensor, " C"],
        noise: Noise,
    ) -> Int[Tensor, " C"]:
        """One token per cell from log-probabilities, with the same noise as `write`."""
        return self.write(log_probs.float().clamp_(min=IMPOSSIBLE), rows, columns, noise)[0]


def in_parts(cells: int, vocab_size: int) -> Iterator[slice]:
    """Slices of so many cells, each of at most `CHUNK` logits and at least one cell's."""
    step = max(1, CHUNK // vocab_size)
    return (slice(first, first + step) for first in range(0, cells, step))


def forbid(
    logits: Float[Tensor, "*cells V"], ids: Sequence[int | str]
) -> Float[Tensor, "*cells V"]:
    """The logits with some ids made impossible. Called after every head call, sampler's included."""
    impossible = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    impossible[_ids(tuple(ids), logits.device)] = True
    return logits.masked_fill(impossible, -torch.inf)


def _ids(ids: tuple[int | str, ...], device: torch.device) -> Int[Tensor, " F"]:
    assert all(isinstance(token, int) for token in ids), "Draw.prepare(base) looks strings up"
    return sent(ids, device)  # pyright: ignore[reportArgumentType]


def _token_id(base: Base, token: int | str) -> int:
    """An id as it is, a token string looked up. Raises ConfigError if the tokenizer lacks it."""
    if isinstance(token, int):
        return token
    known = {} if base.tokenizer is None else base.tokenizer.get_vocab()
    if token not in known:
        raise ConfigError(f"forbid names {token!r}, which is no token of {base.name}")
    return known[token]


def _nucleus(
    logits: Float[Tensor, "*cells V"], top_p: float, lowest: float = IMPOSSIBLE
) -> Float[Tensor, "*cells V"]:
    """The logits, in place, with everything outside the nucleus at the lowest; the best token stays."""
    probs, index = logits.sort(dim=-1, descending=True)
    probs = probs.softmax(-1)
    before = probs.cumsum(-1).sub_(probs)
    outside = torch.zeros_like(before, dtype=torch.bool).scatter_(-1, index, before > top_p)
    return logits.masked_fill_(outside, lowest)
