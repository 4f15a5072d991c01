"""Compiles the look where no check of shapes wraps it, and prints what a test reads, as JSON."""

import json
import re
import sys

import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code

from dlmjoint.decoding.looks.look import look_at

VOCAB_SIZE = 3072


def numbers(logits: Tensor) -> tuple[Tensor, ...]:
    """The look's, float32, of logits of any dtype."""
    look = look_at(logits.float(), None)
    return look.best, look.others, look.second, look.spread


def main() -> None:
    logits = 4 * torch.randn(48, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    torch._dynamo.mark_static(logits, 1)  # the vocabulary, to be found in the code
    kept = logits.clone()
    compiled, code = run_and_get_code(torch.compile(numbers, dynamic=True, fullgraph=True), logits)
    text = "\n".join(code)
    plain = numbers(logits.clone())
    told = {
        "buffers": re.findall(r"= empty_strided_cpu\((.*)\)", text),
        "kernels": len(re.findall(r"extern \"C\"", text)),
        "loops": len(re.findall(rf"for\(.*<static_cast<int64_t>\({VOCAB_SIZE}L\)", text)),
        "untouched": torch.equal(logits, kept),
        "apart": [float(((a - b) / b).abs().max()) for a, b in zip(compiled, plain, strict=True)],
        "vocab_size": VOCAB_SIZE,
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
