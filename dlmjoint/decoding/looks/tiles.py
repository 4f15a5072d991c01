"""The look, compiled: a tile of the vocabulary at a time, so that every logit comes from memory once."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from dlmjoint.models.parts.captured import Captured

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
    _, count, width = tiles.shape
    greatest, best = tiles.max(-1, keepdim=True)
    behind = tiles - greatest
    words = torch.arange(width, device=tiles.device)
    odds = torch.where(words == best, 0.0, behind.exp())
    others, second, spread = odds.sum(-1), odds.amax(-1), (behind * odds).sum(-1)

    greatest, best = greatest.squeeze(-1), best.squeeze(-1)
    top, chosen = greatest.max(-1, keepdim=True)
    below = greatest - top
    moved = below.exp()
    there = torch.arange(count, device=tiles.device) == chosen
    all_odds = others + torch.where(there, 0.0, 1.0)
    return (
        (chosen * width + best.gather(-1, chosen)).squeeze(-1),
        (moved * all_odds).sum(-1),
        (moved * torch.where(there, second, 1.0)).amax(-1),
        (moved * (spread + below * all_odds)).sum(-1),
    )


@lru_cache(maxsize=8)
def captured_numbers(device: torch.device) -> Captured[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """`numbers` compiled for a device, once for all numbers of cells."""
    return Captured(numbers, "a look", device, any_size=True)
