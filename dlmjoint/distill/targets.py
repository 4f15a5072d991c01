"""What the base says of the states a plan names, beside what the sampler makes of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.distill.objective import Compared, compared
from dlmjoint.distill.pairs import Pairs, Plan
from dlmjoint.distill.unrolling.blocks import predict_blocks, unroll_blocks
from dlmjoint.distill.unrolling.unroll import UnrollBatch, unroll
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase


def compare(
    base: TransformerBase,
    sampler: JointSampler,
    batch: UnrollBatch,
    pairs: Pairs,
    weights: Sequence[float],
    final: Int[Tensor, "B L"] | None = None,
) -> Compared:
    """The batch's cells: the base runs where the plan of `pairs` asks it, the sampler is unrolled to
    the depths that have weight. `final`, where a loss asks for it, is what the windows end in."""
    plan = pairs.plan(tuple(weights), batch)
    masked = pairs.cells(batch, base.pad_id)
    if base.attention.block_length is None:
        target = _targets(base, batch, plan)
        start = target[:, : plan.starts]
        passes = unroll(base, sampler, batch, start, len(plan.weights))
    else:  # the prefix, computed once, has no masks: nothing is compared there
        prefix, target = _block_targets(base, batch, plan)
        start = target[:, : plan.starts]
        passes = unroll_blocks(base, sampler, batch, prefix, start, len(plan.weights))
        masked = masked[..., batch.response]
        final = None if final is None else final[:, batch.response]
    unrolled = [
        (depth, hidden) for depth, hidden in enumerate(passes, 1) if plan.weights[depth - 1]
    ]
    return compared(unrolled, start, target, masked & _aimed(masked, plan), final)


@torch.no_grad()
def _targets(base: TransformerBase, batch: UnrollBatch, plan: Plan) -> Float[Tensor, "B W L D"]:
    """The base's hidden states of the states the plan names, in their places."""
    if batch.hidden is not None:
        return batch.hidden
    hidden = base.predict(batch.canvas(plan.states)).hidden
    return _placed(hidden.unflatten(0, (len(batch.states), len(plan.states))), batch, plan)


@torch.no_grad()
def _block_targets(
    base: TransformerBase, batch: UnrollBatch, plan: Plan
) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B W N D"]]:
    """What the base says of the columns before the blocks, and the same of the blocks."""
    prefix, hidden = predict_blocks(base, batch, plan.states)
    return prefix, _placed(hidden, batch, plan)


def _placed(
    hidden: Float[Tensor, "B S L D"], batch: UnrollBatch, plan: Plan
) -> Float[Tensor, "B W L D"]:
    """Hidden states of the states a plan names, in their places among all."""
    width = batch.states.shape[1]
    if len(plan.states) == width:
        return hidden
    every = hidden.new_zeros((len(hidden), width, *hidden.shape[2:]))
    every[:, list(plan.states)] = hidden
    return every


def _aimed(masked: Bool[Tensor, "B W L"], plan: Plan) -> Bool[Tensor, "1 W 1"]:
    """The states that are some unroll's target."""
    aimed = masked.new_zeros(masked.shape[1])
    for depth, weight in enumerate(plan.weights, 1):
        if weight:
            aimed[depth : depth + plan.starts] = True
    return aimed[None, :, None]
