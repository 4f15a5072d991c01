"""Losses per cell, unreduced: whoever sums them also counts them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import smooth_l1_loss


def forward_kl(teacher: Float[Tensor, "C V"], student: Float[Tensor, "C V"]) -> Float[Tensor, " C"]:
    """KL(teacher || student) in nats, from log-probabilities (ADJUST Eq. 5, mass-covering).

    Ids forbidden in both (-inf) contribute nothing.
    """
    impossible = teacher == -torch.inf
    difference = teacher.masked_fill(impossible, 0) - student.masked_fill(impossible, 0)
    return (teacher.exp() * difference).sum(-1)


def hidden_distance(
    target: Float[Tensor, "C D"], hidden: Float[Tensor, "C D"]
) -> Float[Tensor, " C"]:
    """Smooth L1 distance of hidden states, mean over D (ADJUST's regularisers)."""
    return smooth_l1_loss(hidden, target, reduction="none").mean(-1)


def same_top(teacher: Float[Tensor, "C V"], student: Float[Tensor, "C V"]) -> Int[Tensor, " C"]:
    """1 where both hold the same token for the most probable."""
    return (teacher.argmax(-1) == student.argmax(-1)).long()
