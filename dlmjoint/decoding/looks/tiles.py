"""Looks and draws to be compiled: a tile of the vocabulary at a time, so that a logit comes from memory once."""

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.models.parts.captured import Captured
from dlmjoint.random import minus_exponential

TILE = 512
"""Words of a vocabulary that are taken together, at most: a GPU holds them in registers, a CPU in its
first cache; and summed one after the other, more would cost digits."""


@lru_cache(maxsize=64)
def tiles_of(vocab_size: int) -> int:
    """Into how many equal tiles a vocabulary falls; 1, if they would be tiny."""
    width = max(width for width in range(1, TILE + 1) if vocab_size % width == 0)
    return vocab_size // width if width >= TILE // 8 else 1


def in_tiles(logits: Float[Tensor, "*cells V"]) -> Float[Tensor, "C T W"]:
    """A view of them."""
    count = tiles_of(logits.shape[-1])
    return logits.view(-1, count, logits.shape[-1] // count)


def numbers(tiles: Float[Tensor, "C T W"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `Look` keeps of every cell: the best token, S, the second's odds, the sum of d exp(d).

    A tile's numbers are relative to its own greatest logit, and moved to the cell's afterwards: sums by
    exp(g), the last one also by g times the tile's sum, where g, at most 0, is what the tile's greatest
    lies below the cell's. The best token of a tile is left out of its sums and comes in again with
    odds exp(g), unless it is the cell's. So nothing cancels here either.
    """
    one = Relative.of(tiles)
    second, spread = one.odds.amax(-1), (one.behind * one.odds).sum(-1)
    return (
        (one.tile * tiles.shape[-1] + one.best.gather(-1, one.tile)).squeeze(-1),
        one.others,
        (one.scale * torch.where(one.elsewhere, 1.0, second)).amax(-1),
        (one.scale * (spread + one.below * one.sums)).sum(-1),
    )


def drawn(
    tiles: Float[Tensor, "C T W"],
    factor: Int[Tensor, "C 1"],
    shift: Int[Tensor, "C 1"],
    words: Int[Tensor, "T W"],
) -> tuple[Int[Tensor, " C"], Float[Tensor, " C"]]:
    """`Draw.write`: a token per cell and its log-probability. The noise is made where it is read, from
    the cells' two constants and the words' (`random.minus_exponential`)."""
    one = Relative.of(tiles)
    zero = torch.zeros((), device=tiles.device)
    noise = minus_exponential(factor[..., None], shift[..., None], words, zero)
    ratio, word = (one.behind.exp() / noise).min(-1)
    tile = (one.scale * ratio).argmin(-1, keepdim=True)
    tokens = tile * tiles.shape[-1] + word.gather(-1, tile)
    behind = tiles.flatten(1).gather(-1, tokens) - one.top
    return tokens.squeeze(-1), behind.squeeze(-1) - one.others.log1p()


class Relative(NamedTuple):
    """Tiles as probabilities over that of their own greatest, and how to make them relative to the
    greatest of their cell."""

    best: Int[Tensor, "C T"]
    """Where a tile's greatest is."""
    behind: Float[Tensor, "C T W"]
    """Logits minus it."""
    odds: Float[Tensor, "C T W"]
    """Their exponentials, but 0 for the greatest itself."""
    top: Float[Tensor, "C 1"]
    """The cell's greatest logit."""
    tile: Int[Tensor, "C 1"]
    """Which tile it is in."""
    elsewhere: Bool[Tensor, "C T"]
    """All other tiles."""
    below: Float[Tensor, "C T"]
    """A tile's greatest minus the cell's."""
    scale: Float[Tensor, "C T"]
    """The exponential of that."""
    sums: Float[Tensor, "C T"]
    """Of a tile's odds, its greatest's among them, unless that is the cell's."""

    @property
    def others(self) -> Float[Tensor, " C"]:
        """S: the probability of all other tokens over that of the cell's best."""
        return (self.scale * self.sums).sum(-1)

    @classmethod
    def of(cls, tiles: Float[Tensor, "C T W"]) -> "Relative":
        """Of finite logits."""
        greatest, best = tiles.max(-1, keepdim=True)
        behind = tiles - greatest
        places = torch.arange(tiles.shape[-1], device=tiles.device)
        odds = torch.where(places == best, 0.0, behind.exp())
        top, tile = greatest.squeeze(-1).max(-1, keepdim=True)
        below = greatest.squeeze(-1) - top
        elsewhere = torch.arange(tiles.shape[1], device=tiles.device) != tile
        sums = odds.sum(-1) + elsewhere
        return cls(best.squeeze(-1), behind, odds, top, tile, elsewhere, below, below.exp(), sums)


@lru_cache(maxsize=8)
def captured_numbers(device: torch.device) -> Captured[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """`numbers` compiled for a device, once for all numbers of cells."""
    return Captured(numbers, "a look", device, any_size=True)


@lru_cache(maxsize=8)
def captured_draw(device: torch.device) -> Captured[tuple[Tensor, Tensor]]:
    """`drawn` compiled in the same way."""
    return Captured(drawn, "a draw", device, any_size=True)
