"""Compiles a look and a draw where no check of shapes wraps them, and prints what a test reads, as JSON."""

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code

from dlmjoint.decoding.looks.tiles import TILE, drawn, in_tiles, numbers
from dlmjoint.random import Noise, words
from tests.decoding.tiled import CELLS, drawn_whole, looked_at

VOCAB_SIZE = 3072


def loops(text: str, bound: str) -> int:
    """Loops that go to this bound."""
    return len(re.findall(rf"for\(.*<static_cast<int64_t>\({bound}\)", text))


def apart(one: Tensor, other: Tensor) -> float:
    """The greatest relative difference."""
    return float(((one - other).abs() / other.abs().clamp(min=1e-30)).max())


def told(
    function: Callable[..., Any], logits: Tensor, beside: tuple[Tensor, ...], plain: Any
) -> dict[str, Any]:
    """Of a function of tiles and of what is beside them, and of what it should find."""
    kept, tiles = logits.clone(), in_tiles(logits)
    for axis in (1, 2):  # sizes that are to be found in the code
        torch._dynamo.mark_static(tiles, axis)
    compiled = torch.compile(function, dynamic=True, fullgraph=True)
    found, code = run_and_get_code(compiled, tiles, *beside)
    text = "\n".join(code)
    tied = logits.round()  # in many cells the greatest of several tiles are equal
    return {
        "buffers": re.findall(r"= empty_strided_cpu\((.*)\)", text),
        "kernels": len(re.findall(r"extern \"C\"", text)),
        "loops over words": loops(text, f"{VOCAB_SIZE}L"),
        "loops over all tiles": loops(text, rf"{VOCAB_SIZE // TILE}L\*\w+"),
        "loops over a tile": loops(text, f"{TILE}L"),
        "untouched": torch.equal(logits, kept),
        "apart": max(map(apart, found, plain(logits))),
        "apart where words tie": max(map(apart, compiled(in_tiles(tied), *beside), plain(tied))),
        "wide": [str(VOCAB_SIZE), f"{VOCAB_SIZE // TILE}, {TILE}"],
    }


def main() -> None:
    logits = 4 * torch.randn(CELLS, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    noise = Noise(0, tuple(range(CELLS)))
    line = noise.line(torch.arange(CELLS), torch.zeros(CELLS, dtype=torch.long))
    known = words(VOCAB_SIZE, logits.device).view(-1, TILE)
    json.dump(
        {
            "look": told(numbers, logits, (), looked_at),
            "draw": told(drawn, logits, (*line, known), lambda some: drawn_whole(some, noise)),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
