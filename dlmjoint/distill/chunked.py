"""Losses over a large vocabulary without ever holding [cells, vocabulary] for all cells.

Hidden states go through the head, the softmax and the loss a few cells at a time, teacher's and
student's alike. The gradient of a cell's loss is taken in the same visit and kept as one hidden
state, so the backward pass costs a multiplication and no second forward. (Liger-Kernel, arXiv
2410.10989, does this for one loss per batch; here each cell keeps its own, so that weights, and
processes, may be applied afterwards.)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlmjoint.decoding.order import entropy
from dlmjoint.distill.losses import Divergence

CPU_LOGITS, GPU_LOGITS = 11 << 20, 1 << 26
"""Logits of one chunk: 75 cells at 152,064 words on a CPU, above the 32 MiB from which glibc gives
memory back at once, where smaller pieces pile up to four times what is in use; 441 cells in 268 MB
on a GPU, where fewer would leave the head waiting for its own weights."""
CPU_CELLS = 512
"""Cells of one chunk on a CPU, at most: at a small vocabulary their logits stay in the cache, which is
worth half of the loss's time; the head's own products gain nothing from more."""

LogProbs = Callable[[Tensor], Tensor]
"""From hidden states [cells, D] to log-probabilities [cells, V]."""


@dataclass(frozen=True)
class Cells:
    """Student cells and the teacher cells they are compared with."""

    student: Float[Tensor, "M D"]
    teacher: Float[Tensor, "C D"]
    owner: Int[Tensor, " M"]
    """The teacher cell of each student cell, ascending: several students share one teacher."""
    tokens: Int[Tensor, " M"] | None = None
    """What is written there in the end, for losses that ask for it."""


def chunks(
    cells: Cells, log_probs: LogProbs, chunk: int
) -> Iterator[tuple[slice, slice, Float[Tensor, "m V"]]]:
    """Yield a slice of student cells, the slice of teacher cells they need, and the teacher's
    log-probabilities, one row per student cell."""
    if not len(cells.student):
        return
    starts = range(0, len(cells.student), chunk)
    ends = [min(start + chunk, len(cells.student)) for start in starts]
    first = cells.owner[torch.tensor(list(starts))].tolist()
    last = cells.owner[torch.tensor(ends) - 1].tolist()
    for start, end, low, high in zip(starts, ends, first, last, strict=True):
        rows, owners = slice(start, end), slice(low, high + 1)
        with torch.no_grad():
            teacher = [log_probs(cells.teacher[owners])[cells.owner[rows] - low]]
        yield rows, owners, teacher.pop()  # whoever takes it may let go of it


def chunk_size(vocab_size: int, device: torch.device) -> int:
    """Cells per chunk that keep a device busy without filling it."""
    if device.type == "cuda":
        return max(1, GPU_LOGITS // vocab_size)
    return max(1, min(CPU_CELLS, CPU_LOGITS // vocab_size))


def divergences(
    cells: Cells,
    log_probs: LogProbs,
    divergence: Divergence,
    chunk: int,
    entropies: bool = False,
) -> tuple[Float[Tensor, " M"], Float[Tensor, " C"] | None]:
    """Each student cell's loss, differentiable in `cells.student`; with `entropies` also the
    teacher's entropy in every teacher cell, in nats.

    `log_probs` must treat cells alone and have nothing to train: the head is frozen. Equal to the
    loss over all cells at once, value and gradient, up to the order of floating-point sums.
    """
    loss, uncertain = _Divergences.apply(  # pyright: ignore[reportGeneralTypeIssues]
        cells.student, cells, log_probs, divergence, chunk, entropies
    )
    return loss, uncertain if entropies else None


class _Divergences(torch.autograd.Function):
    """Value and gradient per cell in one visit."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        cells: Cells,
        log_probs: LogProbs,
        divergence: Divergence,
        chunk: int,
        entropies: bool,
    ) -> tuple[Tensor, Tensor]:
        """Loss per student cell, entropy per teacher cell (empty unless asked for)."""
        loss = torch.empty(len(student), dtype=torch.promote_types(student.dtype, torch.float32))
        loss = loss.to(student.device)
        uncertain = loss.new_zeros(len(cells.teacher) if entropies else 0)
        slope = torch.zeros_like(student)
        for rows, owners, teacher in chunks(cells, log_probs, chunk):
            if entropies:
                uncertain[owners][cells.owner[rows] - owners.start] = entropy(teacher)
            some = student[rows].detach().requires_grad_()
            tokens = None if cells.tokens is None else cells.tokens[rows]
            with torch.enable_grad():
                here = divergence(teacher, log_probs(some), tokens)
                del teacher  # as wide as the vocabulary, and the backward pass needs room
                here.sum().backward()
            assert some.grad is not None
            slope[rows], loss[rows] = some.grad, here.detach()
        ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(uncertain)
        return loss, uncertain

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The kept gradients, each times its cell's."""
        (slope,) = ctx.saved_tensors
        return (grads[0][:, None].to(slope.dtype) * slope, None, None, None, None, None)
