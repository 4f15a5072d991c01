"""Decoding: ours against a plain rendering of the paper's loop."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from dlmjoint.bench.full_size import new_sampler, places
from dlmjoint.bench.measure import against, measure
from dlmjoint.bench.on_base import OnBase, half_written, ideal_ratio, masks_left
from dlmjoint.bench.stand_ins.paper import paper_decode
from dlmjoint.bench.suite import Setting
from dlmjoint.costs import arithmetic
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Marginals
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise

COMMITS = (1, 2, 4, 8)
"""Tokens per base forward."""


class Decode(OnBase):
    """Tokens per second at K = 1, 2, 4, 8 with a sampler, in the middle of a response."""

    name = "decode"

    def points(
        self, base: TransformerBase, setting: Setting, note: Callable[[str], None]
    ) -> Iterator[dict[str, Any]]:
        """A record per batch size, length and K."""
        sampler = new_sampler(base)
        for length, batch_size in places(base, setting):
            for commits in COMMITS:
                note(f"decode, batch {batch_size}, length {length}, K = {commits}")
                yield {
                    "batch_size": batch_size,
                    "length": length,
                    "commits": commits,
                    "measured": decoding(base, sampler, batch_size, length, commits, setting),
                }


def decoding(
    base: TransformerBase,
    sampler: JointSampler,
    batch_size: int,
    length: int,
    commits: int,
    setting: Setting,
) -> dict[str, dict[str, Any]]:
    """Both loops over the same forwards of the same canvas, in turn. One token per forward needs no
    sampler: theirs leaves it out too."""
    left = masks_left(length, commits, setting.forwards)
    canvas = half_written(base, batch_size, length, left)
    policy = Policy(commits, refine=Joint(sampler) if commits > 1 else Marginals()).prepare(base)
    noise = Noise(0, tuple(range(batch_size)))

    def ours() -> int:
        steps = islice(decode(base, canvas, policy, noise), setting.forwards)
        return int(sum(step.written.sum() for step in steps))

    def papers() -> int:
        used = sampler if commits > 1 else None
        *_, last = islice(paper_decode(base, used, canvas, commits), setting.forwards)
        return int(canvas.masked.sum() - last.masked.sum())

    names = f"the paper's loop, K = {commits}", f"ours, K = {commits}"
    found = measure({names[0]: papers, names[1]: ours}, setting.repeats, base.device)
    size = arithmetic.measure(type(base), base.config)
    ideal = ideal_ratio(size, length, commits, left, setting.forwards)
    return against(found, names[0], "tokens", {names[1]: ideal})
