"""What a batch's unrolled hidden states are worth: losses per depth, and how far they are from the
base's."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.distill.chunked import Cells, LogProbs, chunks, divergences
from dlmjoint.distill.losses import Divergence, ForwardKL, forward_kl, hidden_distance, same_top
from dlmjoint.errors import ConfigError

Unrolled = Iterable[tuple[int, Tensor]]
"""Depth and the hidden states [B, A, L, D] after so many passes; entry (b, i) is about state i +
depth, and A falls with the depth."""


@dataclass(frozen=True)
class Objective:
    """The loss of a cell. ADJUST's default is the forward KL alone."""

    divergence: Divergence = field(default_factory=ForwardKL)
    """Of the sampler's distribution from the base's."""
    weight: float = 1.0
    """Of the divergence."""
    hidden_weight: float = 0.0
    """Of the distance to the base's hidden states at the same state."""
    drift_weight: float = 0.0
    """Of the distance to the hidden states the unroll began with."""
    next_weight: float = 0.0
    """A cell counts 1 + this where it is the one the base would write next: its lowest entropy in
    the canvas."""

    def __post_init__(self) -> None:
        for name in ("weight", "hidden_weight", "drift_weight", "next_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 0")


@dataclass(frozen=True)
class Compared:
    """All cells of a batch that are compared, grouped by the base's cell they are compared with."""

    cells: Cells
    depth: Int[Tensor, " M"]
    """Passes each student cell is made of."""
    origin: Float[Tensor, "M D"]
    """The base's hidden state at the cell where its unroll began."""
    canvas: Int[Tensor, " C"]
    """The canvas (window and state) each teacher cell is in."""


def compared(
    unrolled: Unrolled,
    start: Float[Tensor, "B S L D"],
    target: Float[Tensor, "B W L D"],
    masked: Bool[Tensor, "B W L"],
    final: Int[Tensor, "B L"] | None,
) -> Compared:
    """Gather the masked cells: nothing is computed for columns that are written already.

    `target` holds the base's hidden states where a depth needs them; other states' entries are not
    read; `final` is what the trajectories end in, where a loss asks for it.
    """
    numbers = (masked.flatten().cumsum(0) - 1).view_as(masked)
    parts = []
    for depth, hidden in unrolled:
        alive = hidden.shape[1]
        here = masked[:, depth : depth + alive]
        owner = numbers[:, depth : depth + alive][here]
        parts.append(
            (
                hidden[here],
                owner,
                torch.full_like(owner, depth),
                start[:, :alive][here],
            )
        )
    student, owner, depth, origin = (torch.cat(part) for part in zip(*parts, strict=True))
    owner, by_owner = owner.sort(stable=True)
    batch, state, column = masked.nonzero(as_tuple=True)
    tokens = None if final is None else final[batch, column][owner]
    cells = Cells(student[by_owner], target[masked], owner, tokens)
    canvas = batch * masked.shape[1] + state
    return Compared(cells, depth[by_owner], origin[by_owner], canvas)


def cell_losses(
    objective: Objective, found: Compared, log_probs: LogProbs, chunk: int
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """Every cell's loss, and how much the cell counts."""
    cells, wanted = found.cells, objective.next_weight > 0
    loss, entropies = divergences(cells, log_probs, objective.divergence, chunk, entropies=wanted)
    loss = objective.weight * loss
    if objective.hidden_weight:
        distance = hidden_distance(cells.teacher[cells.owner], cells.student)
        loss = loss + objective.hidden_weight * distance
    if objective.drift_weight:
        loss = loss + objective.drift_weight * hidden_distance(found.origin, cells.student)
    counts = torch.ones_like(loss, requires_grad=False)
    if entropies is not None:
        counts += objective.next_weight * _lowest(entropies, found.canvas)[cells.owner]
    return loss, counts


def _lowest(entropies: Float[Tensor, " C"], canvas: Int[Tensor, " C"]) -> Bool[Tensor, " C"]:
    """The teacher cells with the lowest entropy of their canvas."""
    size = int(canvas.max()) + 1 if len(canvas) else 0
    least = entropies.new_full((size,), torch.inf).scatter_reduce(0, canvas, entropies, "amin")
    return entropies == least[canvas]


@torch.no_grad()
def agreement(
    found: Compared, log_probs: LogProbs, chunk: int
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"], Float[Tensor, " M"]]:
    """KL(base || sampler) of every cell in nats, the same for the marginals - the hidden states the
    unroll began with - and 1 where sampler and base would say the same."""
    kl, marginal, top = [], [], []
    for rows, _, teacher in chunks(found.cells, log_probs, chunk):
        student = log_probs(found.cells.student[rows])
        kl.append(forward_kl(teacher, student))
        top.append(same_top(teacher, student).to(student.dtype))
        marginal.append(forward_kl(teacher, log_probs(found.origin[rows])))
    empty = [found.origin.new_zeros(0)]
    return torch.cat(kl or empty), torch.cat(marginal or empty), torch.cat(top or empty)
