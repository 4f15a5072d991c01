"""Suites that decode with one base."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from dlmjoint.bench.stand_ins.base import folder_of
from dlmjoint.bench.suite import Setting, Suite
from dlmjoint.costs import arithmetic
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.types import Canvas


class OnBase(Suite):
    """A suite that needs no more than the loaded base, which it may share with others."""

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """Its points for every model."""
        yield from together([self], setting, note)

    @abstractmethod
    def points(
        self, base: TransformerBase, setting: Setting, note: Callable[[str], None]
    ) -> Iterator[dict[str, Any]]:
        """A record per point measured with this base."""


def together(
    suites: Sequence[OnBase], setting: Setting, note: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """The points of all suites for every model, each of which is loaded once."""
    for model in setting.models:
        base = load_base(folder_of(model, setting, note), setting.device, setting.dtype)
        for suite in suites:
            for record in suite.points(base, setting, lambda text, m=model: note(f"{m}: {text}")):
                yield {"model": model, "point": suite.name, **record}


def masks_left(length: int, commits: int, forwards: int) -> int:
    """Masks that a response of length - 1 columns starts with so that, over so many forwards, half of
    it is masked on average, as over a whole decoding; all of them if that is not enough."""
    response = length - 1
    return min(response, -(-(response + commits * forwards) // 2))


def half_written(base: TransformerBase, batch_size: int, length: int, left: int) -> Canvas:
    """A canvas behind a single token, all but `left` of its columns written at random."""
    start = base.eos_id if base.bos_id is None else base.bos_id  # any one token will do
    canvas = base.canvas([[start]] * batch_size, length - 1)
    generator = torch.Generator().manual_seed(0)
    response = (batch_size, length - 1)
    order = torch.rand(response, generator=generator).argsort(-1)
    plain = torch.randint(base.vocab_size // 2, response, generator=generator)  # no special tokens
    tokens = torch.where(order < left, base.mask_id, plain).to(canvas.tokens)
    return replace(canvas, tokens=torch.cat([canvas.tokens[:, : canvas.response.start], tokens], 1))


def ideal_ratio(
    size: arithmetic.Size, length: int, commits: int, left: int, forwards: int
) -> float:
    """FLOPs of the paper's loop over ours for so many forwards of one row with `left` masks: K passes
    instead of K - 1, logits of all columns instead of the masked ones'."""
    theirs = ours = 0.0
    for _ in range(forwards):
        quota = min(commits, left)
        joint = commits > 1
        theirs += bool(quota) * arithmetic.forward_flops(size, length, length, length)
        theirs += joint * quota * arithmetic.pass_flops(size, length, length, length)
        ours += bool(quota) * arithmetic.forward_flops(size, length, length, left + quota)
        for done in range(1, quota if joint else 1):
            ours += arithmetic.pass_flops(size, length, length, left - done)
        left -= quota
    return theirs / ours
