"""Steps of a decoding, turned into trajectories."""

from collections.abc import Iterable, Sequence

import torch

from dlmjoint.types import Canvas, Step, Trajectory


def record(canvas: Canvas, steps: Iterable[Step], example_ids: Sequence[int]) -> list[Trajectory]:
    """One trajectory per row of the canvas the decoding began with; consumes the steps.

    Any decoding is recorded as the sequence of its commits; it is exact if the policy was.
    """
    start, length = canvas.response.start, canvas.response.stop - canvas.response.start
    expected = canvas.masked.sum(-1)
    # One place more than there are columns: there goes what a commit has no entry for.
    shape = (len(example_ids), length + 1)
    order = torch.zeros(shape, dtype=torch.long, device=expected.device)
    log_probs = torch.zeros(shape, dtype=torch.float64, device=expected.device)
    written = torch.zeros_like(expected)
    tokens = canvas.tokens
    for step in steps:
        for commit in step.commits:
            number = written[:, None] + commit.written.cumsum(-1)
            place = torch.where(commit.written, number - 1, length).clamp(max=length)
            order.scatter_(1, place, commit.columns - start)
            log_probs.scatter_(1, place, commit.log_probs.double())
            written = number[:, -1]
        tokens = step.canvas.tokens
    written, expected = written.cpu(), expected.cpu()
    if not torch.equal(written, expected):
        raise ValueError(f"{written.tolist()} commits recorded, expected {expected.tolist()}")
    tokens, attends = tokens.cpu(), canvas.attends.cpu()
    order, log_probs = order.cpu(), log_probs.cpu()
    return [
        Trajectory(
            example_id=example_id,
            prompt=tokens[row, :start][attends[row, :start]].clone(),
            response=tokens[row, canvas.response].clone(),
            order=order[row, : expected[row]].clone(),
            log_probs=log_probs[row, : expected[row]].clone(),
        )
        for row, example_id in enumerate(example_ids)
    ]
