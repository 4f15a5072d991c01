"""Noise that belongs to examples: it depends on (seed, example id, column) and on nothing else.

Batch size, padding, rank, world size and the number of tokens committed per forward cannot change
it, so decoders run with one seed are coupled (common random numbers) and every run is repeatable.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """Independent random numbers for every response column of every row.

    A cell's seed is a hash of (seed, example id, column, purpose), made on the host; everything
    further is integer arithmetic, so every device draws the same.
    """

    seed: int
    example_ids: tuple[int, ...]
    """One per row."""
    _over: "_Seeds | None" = field(default=None, repr=False, compare=False)

    def over(self, columns: int, device: torch.device) -> "Noise":
        """The same noise with the seeds of so many response columns on a device: it then draws
        without a word between the device and the host."""
        held = _Seeds(columns, device, torch.arange(len(self.example_ids), device=device), self)
        held.tables["lines"] = _lines(held.table("token"))
        return Noise(self.seed, self.example_ids, held)

    def select(self, rows: Bool[Tensor, " B"]) -> "Noise":
        """The noise of some rows."""
        return self.take([row for row, kept in enumerate(rows.tolist()) if kept])

    def take(self, rows: Sequence[int], index: Int[Tensor, " R"] | None = None) -> "Noise":
        """The noise of some rows by their numbers, which the host has; the device has them in
        `index`, unless the noise lies on no device."""
        held = None
        if self._over is not None:
            if index is None:
                index = torch.tensor(rows, device=self._over.rows.device, dtype=torch.long)
            held = replace(self._over, rows=self._over.rows[index])
        return Noise(self.seed, tuple(self.example_ids[row] for row in rows), held)

    def exponential(
        self, rows: Int[Tensor, "*#cells"], columns: Int[Tensor, "*cells"], vocab_size: int
    ) -> Float[Tensor, "*cells V"]:
        """Minus a standard exponential number for every word of some cells, on their device; `columns`
        count from the response's first. Of p / E over the words the greatest is a draw from p: the
        Gumbel trick, -log E being a Gumbel number.

        Word v has the hash a W[v] + b of 64 bits: a (odd) and b are the cell's, W[v] is a random
        constant, so two words of a cell are independent of each other, and two cells altogether.
        Float32, from 64 bits that keep their precision towards E = 0, where draws are decided:
        probabilities are right to one part in ten millions. The usual float32 numbers, cut off at
        2^-24, favour likely words (arXiv 2409.02908).
        """
        factor, shift = self.line(rows, columns)
        device = rows.device
        return minus_exponential(factor, shift, words(vocab_size, device), _zero(device))

    def gumbel(
        self, rows: Int[Tensor, "*cells"], columns: Int[Tensor, "*cells"], vocab_size: int
    ) -> Float[Tensor, "*cells V"]:
        """Standard Gumbel noise for some cells: `exponential` as it is usually told."""
        return self.exponential(rows, columns, vocab_size).neg_().log_().neg_()

    def uniform(
        self, rows: Int[Tensor, "*cells"], columns: Int[Tensor, "*cells"], purpose: str = "order"
    ) -> Float[Tensor, "*cells"]:
        """One number in (0, 1) per cell, independent of its tokens' noise and of other purposes'."""
        return _uniform(self._seeds(purpose, rows, columns), 1)

    def line(
        self, rows: Int[Tensor, "*#cells"], columns: Int[Tensor, "*cells"]
    ) -> tuple[Int[Tensor, "*cells 1"], Int[Tensor, "*cells 1"]]:
        """The two constants of every cell's hash, a and b."""
        if self._over is None:
            lines = _lines(self._seeds("token", rows, columns))
        else:
            lines = self._over.tables["lines"][self._over.rows[rows], columns]
        factor, shift = lines.split(1, dim=-1)
        return factor, shift

    def _seeds(self, purpose: str, rows: Tensor, columns: Tensor) -> Int[Tensor, "*cells"]:
        """One seed per cell."""
        if self._over is not None:
            return self._over.table(purpose)[self._over.rows[rows], columns]
        cells = zip(rows.flatten().tolist(), columns.flatten().tolist(), strict=True)
        seeds = [derive_seed(self.seed, self.example_ids[r], c, purpose) for r, c in cells]
        return torch.tensor(seeds, dtype=torch.long, device=rows.device).view(rows.shape)


@dataclass(frozen=True)
class _Seeds:
    """Seeds of all cells on a device, purpose by purpose, made once for the whole batch."""

    columns: int
    device: torch.device
    rows: Int[Tensor, " R"]
    """Where the rows are in the tables."""
    noise: Noise
    """Of the whole batch."""
    tables: dict[str, Int[Tensor, "B N *k"]] = field(default_factory=dict)

    def table(self, purpose: str) -> Int[Tensor, "B N"]:
        """The seeds for a purpose."""
        if purpose not in self.tables:
            seeds = [
                [
                    derive_seed(self.noise.seed, example, column, purpose)
                    for column in range(self.columns)
                ]
                for example in self.noise.example_ids
            ]
            self.tables[purpose] = torch.tensor(seeds, dtype=torch.long, device=self.device)
        return self.tables[purpose]


def minus_exponential(
    factor: Int[Tensor, "*#cells"],
    shift: Int[Tensor, "*#cells"],
    words: Int[Tensor, "*#cells"],
    zero: Float[Tensor, ""],
) -> Float[Tensor, "*cells"]:
    """`Noise.exponential` from a, b and W."""
    hashed = torch.addcmul(shift, factor, words).float()
    # -|h| 2^-63 at once, where `abs_` and `mul_` would write an array each: -h times the derivative of
    # Huber's loss at h, which is 2^-63 with h's sign. A product with a power of two is exact.
    huber = torch.ops.aten.huber_loss_backward.out
    huber(hashed, zero, hashed, 0, 2.0**-63, grad_input=hashed)
    return hashed.log1p_()


def _lines(seeds: Int[Tensor, "*cells"]) -> Int[Tensor, "*cells 2"]:
    """An odd factor and a shift for every cell."""
    return torch.stack([_mixed(seeds, 1).bitwise_or_(1), _mixed(seeds, 2)], dim=-1)


@lru_cache(maxsize=4)
def words(vocab_size: int, device: torch.device) -> Int[Tensor, " V"]:
    """A random constant for every word."""
    with torch.inference_mode(False):  # training draws too
        zero = torch.zeros((), dtype=torch.long, device=device)
        return _mixed(zero, torch.arange(1, vocab_size + 1, device=device))


@lru_cache(maxsize=8)
def _zero(device: torch.device) -> Float[Tensor, ""]:
    with torch.inference_mode(False):
        return torch.zeros((), device=device)


def _mixed(
    seeds: Int[Tensor, "*#cells"], numbers: Int[Tensor, "*#cells"] | int
) -> Int[Tensor, "*cells"]:
    """64 bits from a seed and a counter: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). A generator
    per cell would have to be started for each, on the CPU."""
    golden = _signed(0x9E3779B97F4A7C15)
    # A product of two Python integers would not wrap around as torch's do.
    step = (
        numbers * golden if isinstance(numbers, Tensor) else _signed(numbers * golden % (1 << 64))
    )
    state = seeds + step
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = state.bitwise_xor_(_right(state, shift)).mul_(_signed(factor))
    return state.bitwise_xor_(_right(state, 31))


def _uniform(
    seeds: Int[Tensor, "*#cells"], numbers: Int[Tensor, "*#cells"] | int
) -> Float[Tensor, "*cells"]:
    """Numbers in (0, 1), float64: the upper 53 bits of SplitMix64's."""
    return _right(_mixed(seeds, numbers), 11).double().add_(0.5).mul_(2.0**-53)


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
