"""The decoding loop. Exact sampling, parallel sampling, the joint sampler, early commit, reused
keys and guided drafts: all are settings of it."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool
from torch import Tensor

from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.turn import Turn
from dlmjoint.models.base import Base
from dlmjoint.random import Noise
from dlmjoint.types import Canvas, Step


@torch.inference_mode()
def decode(base: Base, canvas: Canvas, policy: Policy, noise: Noise) -> Iterator[Step]:
    """Yield one Step per base forward until no mask is left.

    `policy` must have been prepared for this base (`Policy.prepare`). Rows are independent: each
    is decoded as it would be alone, and a finished row is left as it is.
    """
    memory = policy.cache.memory()
    gate = policy.guide.begin(base, canvas)
    forward = 0
    while (unfinished := canvas.masked.any(-1)).any():
        renew = policy.cache.renew(canvas, memory, forward) | policy.early.watch(canvas)
        turn = Turn(
            base=policy.forward.speaker(base),
            order=policy.order,
            draw=policy.draw,
            refine=policy.refine,
            block_length=policy.blocks,
            noise=noise,
            forward=forward,
            canvas=canvas,
            prediction=policy.forward(base, canvas, renew, memory),
        )
        policy.early.finish(turn)
        before = turn.canvas
        turn.drafting()
        write_tokens(turn, policy)
        accepted, guide_passes = gate.check(before, turn)
        turn.keep_first(accepted)
        canvas = turn.canvas
        yield Step(
            canvas=canvas,
            commits=tuple(turn.commits),
            forwards=unfinished.long() * policy.forward.forwards,
            passes=turn.passes,
            guide_passes=guide_passes,
            columns=(renew & canvas.attends).sum(-1) * unfinished * policy.forward.forwards,
        )
        forward += 1


def write_tokens(turn: Turn, policy: Policy) -> None:
    """Write tokens one by one in every unfinished row, for as long as its schedule allows.

    From the second on the prediction is renewed first: by nothing (marginals) or by the sampler.
    """
    masked = turn.canvas.masked.sum(-1)
    quota = policy.schedule.commits(turn.forward, turn.open().sum(-1), masked)
    spent = torch.zeros(len(quota), dtype=torch.float64, device=quota.device)
    going: Bool[Tensor, " B"] = quota > 0
    depth = 0
    while going.any():
        if depth > 0:
            turn.improve(going)
        cells = turn.next(going)
        assert depth > 0 or len(cells.rows) == going.sum(), f"{policy} wrote nothing in a forward"
        accepted, price = policy.schedule.accept(depth, cells.log_probs, spent[cells.rows])
        if depth == 0:
            accepted = torch.ones_like(accepted)  # every forward writes something
        spent[cells.rows] += price
        turn.commit(cells.keep(accepted))
        going = torch.zeros_like(going)
        going[cells.rows[accepted]] = True
        depth += 1
        going = going & (quota > depth) & turn.open().any(-1)
