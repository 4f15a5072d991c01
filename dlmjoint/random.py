"""Noise that belongs to examples: it depends on (seed, example id, column) and on nothing else.

Batch size, padding, rank, world size and the number of tokens committed per forward cannot change
it, so decoders run with one seed are coupled (common random numbers) and every run is repeatable.
"""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """Independent random numbers for every response column of every row."""

    seed: int
    example_ids: tuple[int, ...]
    """One per row."""

    def select(self, rows: Bool[Tensor, " B"]) -> "Noise":
        """The noise of some rows."""
        pairs = zip(self.example_ids, rows.tolist(), strict=True)
        return Noise(self.seed, tuple(example for example, kept in pairs if kept))

    def gumbel(
        self, rows: Int[Tensor, " C"], columns: Int[Tensor, " C"], vocab_size: int
    ) -> Float[Tensor, "C V"]:
        """Standard Gumbel noise for some cells, on their device; `columns` count from the response's
        first.

        Float64: at lower precision the maximum of log-probability plus noise favours likely tokens
        (arXiv 2409.02908).
        """
        words = torch.arange(1, vocab_size + 1, device=rows.device)
        drawn = _uniform(self._seeds("token", rows, columns)[:, None], words)
        return drawn.log_().neg_().log_().neg_()

    def uniform(
        self, rows: Int[Tensor, " C"], columns: Int[Tensor, " C"], purpose: str = "order"
    ) -> Float[Tensor, " C"]:
        """One number in (0, 1) per cell, independent of its Gumbel noise and of other purposes'."""
        seeds = self._seeds(purpose, rows, columns)
        return _uniform(seeds, torch.ones_like(seeds))

    def _seeds(self, purpose: str, rows: Tensor, columns: Tensor) -> Int[Tensor, " C"]:
        """One seed per cell."""
        cells = zip(rows.tolist(), columns.tolist(), strict=True)
        seeds = [derive_seed(self.seed, self.example_ids[r], c, purpose) for r, c in cells]
        return torch.tensor(seeds, dtype=torch.long, device=rows.device)


def _uniform(
    seeds: Int[Tensor, "*#cells"], numbers: Int[Tensor, "*#cells"]
) -> Float[Tensor, "*cells"]:
    """Numbers in (0, 1) from a seed and a counter: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) with
    the upper 53 bits kept. Integer arithmetic, so every device has the same ones, in parallel; a
    generator per cell would have to be started for each, on the CPU."""
    state = seeds + numbers * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = state.bitwise_xor_(_right(state, shift)).mul_(_signed(factor))
    state.bitwise_xor_(_right(state, 31))
    return _right(state, 11).double().add_(0.5).mul_(2.0**-53)


def _right(values: Tensor, bits: int) -> Tensor:
    """A shift that fills with zeros: torch's repeats the sign."""
    return (values >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    """An unsigned 64-bit constant as torch holds it; products wrap around alike."""
    return constant - (1 << 64) if constant >> 63 else constant


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from its parts, the same on every machine and in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
