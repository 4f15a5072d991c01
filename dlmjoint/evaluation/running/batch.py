"""One batch of an evaluation: decoded, timed, counted."""

import torch
from jaxtyping import Int
from torch import Tensor

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.evaluation.records import Generation
from dlmjoint.models.base import Base
from dlmjoint.random import Noise
from dlmjoint.trajectories.record import record
from dlmjoint.trajectories.tally import Tally
from dlmjoint.types import Canvas, Step, Trajectory


def decode_batch(base: Base, canvas: Canvas, policy: Policy, noise: Noise) -> list[Generation]:
    """The generations of one batch under a prepared policy, cost included."""
    rows = len(canvas.tokens)
    tally = Tally(eos_id=base.eos_id)
    steps = list(tally.timed(decode(base, canvas, policy, noise), base.device))
    trajectories = record(canvas, steps, noise.example_ids)
    spent = _spent(steps) | {"cells": head_cells(canvas, steps, policy, base)}
    costs = {name: values.tolist() for name, values in spent.items()}
    shared = {
        "seconds": tally.seconds / rows,
        "rows": rows,
        "peak_bytes": tally.peak_bytes,
    }
    made = _commits(steps, rows)
    return [
        _generation(
            base,
            trajectory,
            made[row],
            {name: each[row] for name, each in costs.items()} | shared,
        )
        for row, trajectory in enumerate(trajectories)
    ]


def head_cells(canvas: Canvas, steps: list[Step], policy: Policy, base: Base) -> Int[Tensor, " B"]:
    """Per row, the cells whose logits were computed: those that may be written, once per canvas the
    base was asked about and once per sampler pass, and every written one once more, to draw its token
    from.

    Of drafts that are verified every state counts as many as the first. What a guide rejects, and
    what an order or an early rule computes of its own, is not counted.
    """
    grid, each = policy.grid(base), policy.forward.forwards
    cells = torch.zeros(len(canvas.tokens), dtype=torch.long)
    for step in steps:
        left = canvas.masked.sum(-1).cpu()
        choice = canvas.masked if grid is None else canvas.masked & grid.first(canvas)
        ranked, passes = choice.sum(-1).cpu(), step.passes.cpu()
        cells += ranked * step.canvases.cpu().div(each, rounding_mode="floor")
        for depth in range(1, int(passes.max()) + 1):
            # A pass follows a commit, so there is one mask less.
            cells += torch.where(passes >= depth, torch.minimum(ranked, left - depth), 0)
        canvas = step.canvas
        cells += left - canvas.masked.sum(-1).cpu()
    return cells


def _spent(steps: list[Step]) -> dict[str, Int[Tensor, " B"]]:
    """Per row, what the steps cost together."""
    parts = {
        "base_forwards": [step.forwards for step in steps],
        "canvases": [step.canvases for step in steps],
        "sampler_passes": [step.passes for step in steps],
        "guide_passes": [step.guide_passes for step in steps],
        "columns": [step.columns for step in steps],
    }
    return {name: torch.stack(values).sum(0).cpu() for name, values in parts.items()}


def _commits(steps: list[Step], rows: int) -> list[list[tuple[int, str]]]:
    """Per row, the step and the writer of every commit, in the order of the trajectory."""
    found: list[list[tuple[int, str]]] = [[] for _ in range(rows)]
    for number, step in enumerate(steps, start=1):
        for commit in step.commits:
            for row, count in enumerate(commit.written.sum(-1).tolist()):
                found[row] += [(number, commit.writer)] * count
    return found


def _generation(
    base: Base,
    trajectory: Trajectory,
    commits: list[tuple[int, str]],
    costs: dict[str, int | float],
) -> Generation:
    tokens = trajectory.response.tolist()
    written = trajectory.response[trajectory.order].tolist()
    ended = set(base.end_ids).intersection(tokens[trajectory.anchored :])
    return Generation.from_json(
        {
            "example_id": trajectory.example_id,
            # An enumerable base has ids only.
            "text": "" if base.tokenizer is None else base.decode(tokens, trajectory.anchored),
            "stop": "eos" if ended else "length",
            "prompt": trajectory.prompt.tolist(),
            "tokens": tokens,
            "order": trajectory.order.tolist(),
            "log_probs": [round(value, 7) for value in trajectory.log_probs.tolist()],
            "steps": [number for number, _ in commits],
            "writers": [writer for _, writer in commits],
            "text_tokens": sum(token != base.eos_id for token in written),
        }
        | costs
    )
