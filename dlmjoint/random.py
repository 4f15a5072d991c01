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
        """Standard Gumbel noise for some cells; `columns` count from the response's first.

        Float64: at lower precision the maximum of log-probability plus noise favours likely tokens
        (arXiv 2409.02908). Drawn on the CPU, so that every device sees the same numbers.
        """
        draws = torch.empty(len(rows), vocab_size, dtype=torch.float64)
        for draw, generator in zip(draws, self._generators("token", rows, columns), strict=True):
            draw.exponential_(generator=generator)
        return -draws.log()

    def uniform(
        self, rows: Int[Tensor, " C"], columns: Int[Tensor, " C"], purpose: str = "order"
    ) -> Float[Tensor, " C"]:
        """One number in [0, 1) per cell, independent of its Gumbel noise and of other purposes'."""
        generators = self._generators(purpose, rows, columns)
        return torch.tensor(
            [float(torch.rand((), generator=g, dtype=torch.float64)) for g in generators],
            dtype=torch.float64,
        )

    def _generators(self, purpose: str, rows: Tensor, columns: Tensor) -> list[torch.Generator]:
        """One generator per cell."""
        return [
            torch.Generator().manual_seed(
                derive_seed(self.seed, self.example_ids[row], column, purpose)
            )
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        ]


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from its parts, the same on every machine and in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
