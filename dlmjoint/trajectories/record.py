"""Steps of a decoding, turned into trajectories."""

from collections.abc import Iterable, Sequence

import torch

from dlmjoint.types import Canvas, Step, Trajectory


def record(canvas: Canvas, steps: Iterable[Step], example_ids: Sequence[int]) -> list[Trajectory]:
    """One trajectory per row of the canvas the decoding began with; consumes the steps.

    Any decoding is recorded as the sequence of its commits; it is exact if the policy was.
    """
    start = canvas.response.start
    expected = canvas.masked.sum(-1).cpu()
    shape = (len(example_ids), int(expected.max()))
    order = torch.zeros(shape, dtype=torch.long)
    log_probs = torch.zeros(shape, dtype=torch.float64)
    written = torch.zeros(shape[0], dtype=torch.long)
    tokens = canvas.tokens
    for step in steps:
        for commit in step.commits:
            rows, columns = commit.rows.cpu(), commit.columns.cpu() - start
            place = written[rows] + _occurrence(rows)
            order[rows, place] = columns
            log_probs[rows, place] = commit.log_probs.double().cpu()
            written += torch.bincount(rows, minlength=shape[0])
        tokens = step.canvas.tokens
    if not torch.equal(written, expected):
        raise ValueError(f"{written.tolist()} commits recorded, expected {expected.tolist()}")
    tokens, attends = tokens.cpu(), canvas.attends.cpu()
    return [
        Trajectory(
            example_id=example_id,
            prompt=tokens[row, :start][attends[row, :start]].clone(),
            response=tokens[row, canvas.response].clone(),
            order=order[row, : expected[row]],
            log_probs=log_probs[row, : expected[row]],
        )
        for row, example_id in enumerate(example_ids)
    ]


def _occurrence(rows: torch.Tensor) -> torch.Tensor:
    """How often each entry's value has occurred before it: a commit may write several cells of a
    row at once (an early finish), which are then numbered from left to right."""
    same = rows[:, None] == rows[None, :]
    return same.tril(-1).sum(-1)
