"""The loss at a large vocabulary: all logits at once against a chunk at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div

from dlmjoint.bench.measure import against, host_growth, measure
from dlmjoint.bench.suite import Setting, Suite
from dlmjoint.distill.chunked import Cells, chunk_size, divergences
from dlmjoint.distill.losses import ForwardKL
from dlmjoint.models.files import torch_dtype

VOCABULARY = 152_064
"""Dream's words."""
CELLS = {"cpu": (512,), "cuda": (512, 4096)}
"""Cells compared. On a GPU 512 are hardly more than one chunk, and far fewer than a training step's."""
WIDTH = {"cpu": 1024, "cuda": 3584}
"""Of hidden states: Dream's on a GPU; less on a CPU, where three products of 3,584 take a minute, and
where less shows what is not a product more."""
EAGER, CHUNKED = "all logits at once", "a chunk at a time"


class KL(Suite):
    """Value and gradient of the forward KL, from hidden states."""

    name = "kl"

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """A record per number of cells."""
        device = torch.device(setting.device)
        for cells in CELLS[device.type]:
            size = cells, VOCABULARY, WIDTH[device.type]
            note(f"kl: {size[0]} cells, {size[1]} words, width {size[2]}")
            yield {
                "model": "kl",
                "point": "kl",
                "cells": cells,
                "vocabulary": VOCABULARY,
                "width": WIDTH[device.type],
                "chunk": chunk_size(VOCABULARY, device),
                "measured": _compared(size, device, setting),
            }


def _compared(
    size: tuple[int, int, int], device: torch.device, setting: Setting
) -> dict[str, dict[str, Any]]:
    """Both ways in turn; on a CPU, which does not count its tensors, memory in processes apart."""
    names = EAGER, CHUNKED
    apart = {
        name: host_growth(_alone, name, size, setting.dtype) if device.type == "cpu" else None
        for name in names
    }
    problem = Problem.drawn(size, device, torch_dtype(setting.dtype))
    found = measure({name: partial(problem.once, name) for name in names}, setting.repeats, device)
    # As many multiplications either way: the ideal is no loss of time at all.
    told = against(found, EAGER, "losses", {CHUNKED: 1.0})
    for name, extra in apart.items():
        if extra is not None:
            told[name]["extra_bytes"] = extra
    small, large = (told[name].get("extra_bytes") for name in (CHUNKED, EAGER))
    if small is not None and large is not None:
        told[CHUNKED]["bytes_ratio"] = large / small
    return told


@dataclass(frozen=True)
class Problem:
    """Student and teacher cells, and the head that both go through."""

    head: Float[Tensor, "V D"]
    student: Float[Tensor, "C D"]
    teacher: Float[Tensor, "C D"]

    @classmethod
    def drawn(
        cls, size: tuple[int, int, int], device: torch.device, dtype: torch.dtype
    ) -> "Problem":
        """Of so many cells, words and dimensions; logits are of unit size."""
        cells, vocabulary, width = size
        generator = torch.Generator(device).manual_seed(0)
        head, student, teacher = (
            torch.randn((rows, width), generator=generator, device=device)
            for rows in (vocabulary, cells, cells)
        )
        return cls((head / width**0.5).to(dtype), student.requires_grad_(), teacher)

    def once(self, name: str) -> int:
        """Value and gradient in one of the two ways; one loss."""
        self.student.grad = None
        loss = {EAGER: self._eager, CHUNKED: self._chunked}[name]()
        loss.sum().backward()
        return 1

    def _eager(self) -> Float[Tensor, " C"]:
        """As the paper's code takes it, with torch's own loss."""
        with torch.no_grad():
            target = self._log_probs(self.teacher)
        student = self._log_probs(self.student)
        return kl_div(student, target, reduction="none", log_target=True).sum(-1)

    def _chunked(self) -> Float[Tensor, " C"]:
        numbers = torch.arange(len(self.student), device=self.head.device)
        cells = Cells(self.student, self.teacher, numbers)
        chunk = chunk_size(len(self.head), self.head.device)
        return divergences(cells, self._log_probs, ForwardKL(), chunk)[0]

    def _log_probs(self, hidden: Float[Tensor, "C D"]) -> Float[Tensor, "C V"]:
        return (hidden.to(self.head.dtype) @ self.head.T).float().log_softmax(-1)


def _alone(name: str, size: tuple[int, int, int], dtype: str) -> Callable[[], int]:
    """One of the ways on a CPU, once it has been tried on a single cell: libraries keep memory of
    their own from the first call on."""
    problem = Problem.drawn(size, torch.device("cpu"), torch_dtype(dtype))
    first = problem.student[:1].detach().requires_grad_()
    Problem(problem.head, first, problem.teacher[:1]).once(name)
    return partial(problem.once, name)
