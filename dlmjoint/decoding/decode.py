"""The one decoding loop."""

from collections.abc import Iterator
from itertools import count

import torch

from dlmjoint.decoding.ahead import Ahead
from dlmjoint.decoding.begin import begin_turn
from dlmjoint.decoding.looks.cells import columns_of
from dlmjoint.decoding.policy import Policy
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
    A guide that verifies drafts by forwards of the base leaves its last one as the next turn's.
    """
    memory = policy.cache.memory()
    gate = policy.guide.begin(base, canvas, policy, memory)
    speaker = policy.forward.speaker(base)
    live, rows = canvas, torch.arange(len(canvas.tokens), device=canvas.tokens.device)
    noise = noise.over(canvas.response.stop - canvas.response.start, rows.device)
    ahead = None
    for forward in count():
        ahead = Ahead.of(speaker, live, policy, memory, forward, ahead)
        if not ahead.rows:
            return
        stay = ahead.stay(len(live.tokens), base.captured)
        if len(stay) < len(live.tokens):  # finished rows leave the batch: they would only cost
            left = columns_of(live.masked.any(-1)[None], len(stay))[0]
            if memory is not None:
                memory.keep(left, len(live.tokens))
            gate.keep(left, len(live.tokens))
            live, rows, noise = live.select(left), rows[left], noise.take(stay, left)
            ahead = ahead.take(left)
        turn = begin_turn(base, policy, live, noise, ahead, forward, memory, gate.known)
        turn.prefix = policy.refine.read(speaker, turn.prediction, live, memory)
        policy.early.finish(turn)
        turn.drafting()
        if turn.finished < len(rows):
            write_tokens(turn, policy, ahead)
        gate.check(turn)
        live = turn.canvas
        canvas = live if len(rows) == len(canvas.tokens) else canvas.put(rows, live)
        yield turn.step(canvas, rows)
        if not turn.reviewed and (ahead.last or turn.over):  # nothing is left to ask about
            return
