"""Exact generation: canvases drawn per second."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from dlmjoint import arithmetic
from dlmjoint.bench.decode import blank, ideal_ratio
from dlmjoint.bench.full_size import lengths_held
from dlmjoint.bench.measure import against, measure
from dlmjoint.bench.paper import paper_decode
from dlmjoint.bench.random_base import folder_of
from dlmjoint.bench.suite import Setting, Suite
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise

THEIRS, OURS = "the paper's generation", "our generation"


class Generate(Suite):
    """What `dlmjoint generate` does, one token per base forward, at the largest batch asked for."""

    name = "generate"

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """A record per model and length."""
        batch_size = max(setting.batch_sizes)
        for model in setting.models:
            base = load_base(folder_of(model, setting, note), setting.device, setting.dtype)
            for length in lengths_held(setting.lengths, base.max_length):
                note(f"{model}: generate, batch {batch_size}, length {length}")
                yield {
                    "model": model,
                    "point": "generate",
                    "batch_size": batch_size,
                    "length": length,
                    "measured": generating(base, batch_size, length, setting),
                }


def generating(
    base: TransformerBase, batch_size: int, length: int, setting: Setting
) -> dict[str, Any]:
    """Both loops over the same first forwards of the same canvas, in turn."""
    canvas, policy = blank(base, batch_size, length), Policy().prepare(base)
    noise = Noise(0, tuple(range(batch_size)))

    def ours() -> int:
        steps = islice(decode(base, canvas, policy, noise), setting.forwards)
        return batch_size * sum(1 for _ in steps)

    def papers() -> int:
        steps = islice(paper_decode(base, None, canvas, 1), setting.forwards)
        return batch_size * sum(1 for _ in steps)

    found = measure({THEIRS: papers, OURS: ours}, setting.repeats, base.device)
    size = arithmetic.measure(type(base), base.config)
    ideal = ideal_ratio(size, length, 1, setting.forwards)
    return against(found, THEIRS, "canvases", {OURS: ideal})
