"""The decoding loop. Exact sampling, parallel sampling, the joint sampler, early commit, reused
keys and guided drafts: all are settings of it."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int
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
    live, rows = canvas, torch.arange(len(canvas.tokens), device=canvas.tokens.device)
    forward = 0
    while (unfinished := live.masked.any(-1)).any():
        if not unfinished.all():  # finished rows leave the batch: they would only cost
            live, rows, noise = live.select(unfinished), rows[unfinished], noise.select(unfinished)
            gate.keep(unfinished)
            if memory is not None:
                memory.keep(unfinished)
        renew = policy.cache.renew(live, memory, forward) | policy.early.watch(live)
        turn = Turn(
            base=policy.forward.speaker(base),
            order=policy.order,
            draw=policy.draw,
            refine=policy.refine,
            block_length=policy.blocks,
            noise=noise,
            forward=forward,
            canvas=live,
            prediction=policy.forward(base, live, renew, memory),
        )
        policy.early.finish(turn)
        before = turn.canvas
        turn.drafting()
        write_tokens(turn, policy)
        accepted, guide_passes = gate.check(before, turn)
        turn.keep_first(accepted)
        commits = tuple(commit.renumber(rows) for commit in turn.commits)
        for commit in commits:
            canvas = canvas.write(commit)
        spent = (
            torch.full_like(rows, policy.forward.forwards),
            turn.passes,
            guide_passes,
            (renew & live.attends).sum(-1) * policy.forward.forwards,
        )
        yield Step(canvas, commits, *(_of_all(canvas, rows, cost) for cost in spent))
        live = turn.canvas
        forward += 1


def _of_all(canvas: Canvas, rows: Int[Tensor, " R"], cost: Int[Tensor, " R"]) -> Int[Tensor, " B"]:
    """A cost of some rows as one of all rows: 0 for those that were finished."""
    return torch.zeros_like(canvas.tokens[:, 0]).index_copy(0, rows, cost)


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
