"""Exact generation: canvases drawn per second."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from dlmjoint.bench.full_size import lengths_held
from dlmjoint.bench.measure import against, measure
from dlmjoint.bench.on_base import OnBase, half_written, ideal_ratio, masks_left
from dlmjoint.bench.stand_ins.paper import paper_decode
from dlmjoint.bench.suite import Setting
from dlmjoint.costs import arithmetic
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise

THEIRS, OURS = "the paper's generation", "our generation"


class Generate(OnBase):
    """What `dlmjoint generate` does with a batch, one token per base forward, at the largest batch
    asked for: each canvas is one row after one forward."""

    name = "generate"

    def points(
        self, base: TransformerBase, setting: Setting, note: Callable[[str], None]
    ) -> Iterator[dict[str, Any]]:
        """A record per length."""
        batch_size = max(setting.batch_sizes)
        for length in lengths_held(setting.lengths, base.max_length):
            note(f"generate, batch {batch_size}, length {length}")
            yield {
                "batch_size": batch_size,
                "length": length,
                "measured": generating(base, batch_size, length, setting),
            }


def generating(
    base: TransformerBase, batch_size: int, length: int, setting: Setting
) -> dict[str, dict[str, Any]]:
    """Both loops over the same forwards of the same canvas, in turn; theirs keeps every state, ours
    tokens and order."""
    left, policy = masks_left(length, 1, setting.forwards), Policy().prepare(base)
    canvas = half_written(base, batch_size, length, left)
    noise = Noise(0, tuple(range(batch_size)))

    def ours() -> int:
        steps = list(islice(decode(base, canvas, policy, noise), setting.forwards))
        return batch_size * len(steps)

    def papers() -> int:
        steps = islice(paper_decode(base, None, canvas, 1), setting.forwards)
        history = [step.tokens.tolist() for step in steps]
        return batch_size * len(history)

    found = measure({THEIRS: papers, OURS: ours}, setting.repeats, base.device)
    size = arithmetic.measure(type(base), base.config)
    ideal = ideal_ratio(size, length, 1, left, setting.forwards)
    return against(found, THEIRS, "canvases", {OURS: ideal})
