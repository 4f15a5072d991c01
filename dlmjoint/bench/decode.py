"""Decoding: ours against a plain rendering of the paper's loop."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from dlmjoint import arithmetic
from dlmjoint.bench.full_size import lengths_held, new_sampler
from dlmjoint.bench.measure import against, measure
from dlmjoint.bench.paper import paper_decode
from dlmjoint.bench.random_base import folder_of
from dlmjoint.bench.suite import Setting, Suite
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Marginals
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from dlmjoint.types import Canvas

COMMITS = (1, 2, 4, 8)
"""Tokens per base forward."""


class Decode(Suite):
    """Tokens per second at K = 1, 2, 4, 8, with a sampler."""

    name = "decode"

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """A record per model, batch size, length and K."""
        for model in setting.models:
            base = load_base(folder_of(model, setting, note), setting.device, setting.dtype)
            sampler = new_sampler(base)
            for length in lengths_held(setting.lengths, base.max_length):
                for batch_size in setting.batch_sizes:
                    for commits in COMMITS:
                        note(f"{model}: decode, batch {batch_size}, length {length}, K = {commits}")
                        record = decoding(base, sampler, batch_size, length, commits, setting)
                        yield {"model": model, "point": "decode", **record}


def decoding(
    base: TransformerBase,
    sampler: JointSampler,
    batch_size: int,
    length: int,
    commits: int,
    setting: Setting,
) -> dict[str, Any]:
    """Both loops over the same first forwards of the same canvas, in turn."""
    canvas = blank(base, batch_size, length)
    refine = Joint(sampler) if commits > 1 else Marginals()
    policy = Policy(commits, refine=refine).prepare(base)
    noise = Noise(0, tuple(range(batch_size)))

    def ours() -> int:
        steps = islice(decode(base, canvas, policy, noise), setting.forwards)
        return sum(len(commit.rows) for step in steps for commit in step.commits)

    def papers() -> int:
        used = sampler if commits > 1 else None
        *_, last = islice(paper_decode(base, used, canvas, commits), setting.forwards)
        return int(canvas.masked.sum() - last.masked.sum())

    names = f"the paper's loop, K = {commits}", f"ours, K = {commits}"
    found = measure({names[0]: papers, names[1]: ours}, setting.repeats, base.device)
    size = arithmetic.measure(type(base), base.config)
    ideal = ideal_ratio(size, length, commits, setting.forwards)
    return {
        "batch_size": batch_size,
        "length": length,
        "measured": against(found, names[0], "tokens", {names[1]: ideal}),
    }


def ideal_ratio(size: arithmetic.Size, length: int, commits: int, forwards: int) -> float:
    """FLOPs of the paper's loop over ours, for the first forwards of one row: K passes instead of
    K - 1, logits of all columns instead of the masked ones'."""
    theirs = ours = 0.0
    left = length - 1
    for _ in range(forwards):
        quota = min(commits, left)
        if not quota:
            break
        joint = commits > 1
        theirs += arithmetic.forward_flops(size, length, length, length)
        theirs += joint * quota * arithmetic.pass_flops(size, length, length, length)
        ours += arithmetic.forward_flops(size, length, length, left + quota)
        for done in range(1, quota if joint else 1):
            ours += arithmetic.pass_flops(size, length, length, left - done)
        left -= quota
    return theirs / ours


def blank(base: TransformerBase, batch_size: int, length: int) -> Canvas:
    """A canvas of masks behind a single token."""
    start = base.eos_id if base.bos_id is None else base.bos_id  # any one token will do
    return base.canvas([[start]] * batch_size, length - 1)
