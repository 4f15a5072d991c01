"""Compiles the look where no check of shapes wraps it, and prints what a test reads, as JSON."""

import json
import re
import sys

import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code

from dlmjoint.decoding.looks.look import look_at
from dlmjoint.decoding.looks.tiles import TILE, in_tiles, numbers

VOCAB_SIZE = 3072


def eager(logits: Tensor) -> tuple[Tensor, ...]:
    """The same numbers from a look that is not compiled."""
    look = look_at(logits.clone(), None)
    return look.best, look.others, look.second, look.spread


def loops(text: str, size: int) -> int:
    """Loops that go to this bound."""
    return len(re.findall(rf"for\(.*<static_cast<int64_t>\({size}L\)", text))


def apart(one: Tensor, other: Tensor) -> float:
    """The greatest relative difference."""
    return float(((one - other).abs() / other.abs().clamp(min=1e-30)).max())


def main() -> None:
    logits = 4 * torch.randn(48, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    kept, tiles = logits.clone(), in_tiles(logits)
    for axis in (1, 2):  # sizes that are to be found in the code
        torch._dynamo.mark_static(tiles, axis)
    compiled = torch.compile(numbers, dynamic=True, fullgraph=True)
    found, code = run_and_get_code(compiled, tiles)
    text = "\n".join(code)
    tied = logits.round()  # in many cells the greatest of several tiles are equal
    told = {
        "buffers": re.findall(r"= empty_strided_cpu\((.*)\)", text),
        "kernels": len(re.findall(r"extern \"C\"", text)),
        "loops over words": loops(text, VOCAB_SIZE),
        "loops over a tile": loops(text, TILE),
        "untouched": torch.equal(logits, kept),
        "apart": max(map(apart, found, eager(logits))),
        "apart where words tie": max(map(apart, compiled(in_tiles(tied)), eager(tied))),
        "vocab_size": VOCAB_SIZE,
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
