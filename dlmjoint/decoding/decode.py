"""The one decoding loop."""

from collections.abc import Iterator
from itertools import count

import torch
from jaxtyping import Int
from torch import Tensor

from dlmjoint.decoding.ahead import Ahead
from dlmjoint.decoding.cells import columns_of
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.turn import Turn
from dlmjoint.decoding.write import write_tokens
from dlmjoint.models.base import Base
from dlmjoint.random import Noise
from dlmjoint.types import Canvas, Step


@torch.inference_mode()
def decode(base: Base, canvas: Canvas, policy: Policy, noise: Noise) -> Iterator[Step]:
    """Yield one Step per base forward until no mask is left.

    `policy` must have been prepared for this base (`Policy.prepare`). Rows are independent: each
    is decoded as it would be alone, and a finished row is left as it is. The host asks the device
    once per forward; early rules, schedules that look at probabilities, and guides ask once more.
    """
    memory = policy.cache.memory()
    gate = policy.guide.begin(base, canvas)
    speaker = policy.forward.speaker(base)
    grid = policy.grid(speaker)
    live, rows = canvas, torch.arange(len(canvas.tokens), device=canvas.tokens.device)
    noise = noise.over(canvas.response.stop - canvas.response.start, rows.device)
    ahead = None
    for forward in count():
        ahead = Ahead.of(speaker, live, policy, memory, forward, ahead)
        if not ahead.rows:
            return
        if len(ahead.rows) < len(
            live.tokens
        ):  # finished rows leave the batch: they would only cost
            left = columns_of(live.masked.any(-1)[None], len(ahead.rows))[0]
            if memory is not None:
                memory.keep(left, len(live.tokens))
            gate.keep(left, len(live.tokens))
            live, rows, noise = live.select(left), rows[left], noise.take(ahead.rows, left)
            ahead = ahead.take(left)
        if memory is not None:
            memory.expect(ahead.window)
        prediction = policy.forward(base, live, ahead.renew, memory)
        turn = Turn(
            base=speaker,
            order=policy.order,
            draw=policy.draw,
            refine=policy.refine,
            grid=grid,
            noise=noise,
            forward=forward,
            canvas=live,
            prediction=prediction,
            prefix=policy.refine.read(speaker, prediction, live, memory),
            within=ahead.within,
            watched=ahead.watched,
        )
        turn.look(ahead.candidates, ahead.seen)
        policy.early.finish(turn)
        before = turn.canvas
        turn.drafting()
        if turn.finished < len(rows):
            write_tokens(turn, policy, ahead)
        accepted, guide_passes = gate.check(before, turn)
        if accepted is not None:
            turn.keep_first(accepted)
        live = turn.canvas
        spent = (
            torch.full_like(rows, policy.forward.forwards),
            turn.passes,
            guide_passes,
            (ahead.renew & live.attends).sum(-1) * policy.forward.forwards,
        )
        if len(rows) == len(canvas.tokens):
            canvas = live
            yield Step(canvas, tuple(turn.commits), *spent)
        else:
            canvas = canvas.put(rows, live)
            commits = tuple(commit.among(rows, len(canvas.tokens)) for commit in turn.commits)
            yield Step(canvas, commits, *(_of_all(canvas, rows, cost) for cost in spent))
        if accepted is None and (ahead.last or turn.over):  # nothing is left to ask about
            return


def _of_all(canvas: Canvas, rows: Int[Tensor, " R"], cost: Int[Tensor, " R"]) -> Int[Tensor, " B"]:
    """A cost of some rows as one of all rows: 0 for those that were finished."""
    return torch.zeros_like(canvas.tokens[:, 0]).index_copy(0, rows, cost)
