"""A planned forward, made and laid on the desk: what the loop and whoever checks its drafts share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmjoint.decoding.ahead import Ahead
from dlmjoint.decoding.guide import Known
from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.order import Order
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.turn import Turn
from dlmjoint.models.base import Base
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.random import Noise
from dlmjoint.types import Canvas


def begin_turn(
    base: Base,
    policy: Policy,
    canvas: Canvas,
    noise: Noise,
    ahead: Ahead,
    forward: int | Tensor,
    memory: CanvasMemory | None,
    known: Known | None = None,
) -> Turn:
    """A turn about a canvas, with the cells of the first look seen. The base is asked, unless it is
    `known` what it would say."""
    speaker = policy.forward.speaker(base)
    if known is not None:
        prediction, forward = known.prediction, known.number
    else:
        if memory is not None and ahead.window is not None:
            memory.expect(ahead.window)
        prediction = policy.forward(base, canvas, ahead.renew, memory)
    order = policy.order
    if known is not None and known.owed is not None:
        order = Owed(order, known.owed)
    turn = Turn(
        base=speaker,
        order=order,
        draw=policy.draw,
        refine=policy.refine,
        grid=policy.grid(speaker),
        noise=noise,
        forward=forward,
        canvas=canvas,
        prediction=prediction,
        within=ahead.within,
        watched=ahead.watched,
    )
    if known is None:
        stayed = len(ahead.rows) < len(canvas.tokens)  # finished rows, which cost nothing
        going = canvas.masked.any(-1) if stayed else None
        turn.spend(policy.forward.forwards, ahead.renew, going)
    turn.look(ahead.candidates, ahead.seen)
    return turn


@dataclass(frozen=True, eq=False)
class Owed(Order):
    """Another order in which a row's given column comes first."""

    order: Order
    columns: Tensor
    """Per row; -1: none."""

    def rank(self, cells: Cells, noise: Noise) -> Tensor:
        """The other order's, infinite in the column."""
        owed = cells.columns == self.columns[cells.rows][:, None]
        return self.order.rank(cells, noise).double().masked_fill(owed, torch.inf)
