"""Recorded trajectories walked along: every state with what the base says about it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.random import Noise
from dlmjoint.types import Canvas, Commit, Trajectory

BATCH = 64
"""Trajectories walked together."""


def turns(base: Base, part: Sequence[Trajectory], policy: Policy) -> Iterator[Turn]:
    """The trajectories' states, one after the other, each with the base's prediction: one forward
    each. All have responses of one length; `policy` is prepared.

    Raises ConfigError for a base that writes block after block: what is measured along a trajectory,
    token after token from every state on, would leave its block.
    """
    if base.attention.block_length is not None:
        raise ConfigError(
            f"calibration and measures per depth go from every state of a trajectory on, whatever block "
            f"it is in; {base.name} writes block after block, for which they are not built in"
        )
    length, steps = len(part[0].response), len(part[0].order)
    blank = base.canvas([trajectory.prompt.tolist() for trajectory in part], length)
    for step in range(steps):
        canvas = _at(blank, part, step)
        yield Turn(
            base=base,
            order=policy.order,
            draw=policy.draw,
            refine=policy.refine,
            grid=None,
            noise=Noise(0, tuple(t.example_id for t in part)),
            forward=step,
            canvas=canvas,
            prediction=base.predict(canvas),
        )


def cells(
    turn: Turn, part: Sequence[Trajectory], step: int
) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
    """Where the trajectories write at a step: rows and canvas columns."""
    rows = torch.arange(len(part), device=turn.canvas.tokens.device)
    columns = torch.stack([trajectory.order[step] for trajectory in part]).to(rows.device)
    return rows, columns + turn.canvas.response.start


def write_recorded(turn: Turn, part: Sequence[Trajectory], step: int) -> None:
    """Write what the trajectories wrote at a step; improve the prediction by what is now known."""
    _, columns = cells(turn, part, step)
    tokens = torch.stack([t.response[t.order[step]] for t in part]).to(columns.device)
    turn.write(Commit.of_rows(columns, tokens))
    turn.improve()


def _at(blank: Canvas, part: Sequence[Trajectory], step: int) -> Canvas:
    states = torch.stack([trajectory.state(step, blank.mask_id) for trajectory in part])
    tokens = blank.tokens.clone()
    tokens[:, blank.response] = states.to(tokens.device)
    return replace(blank, tokens=tokens)
