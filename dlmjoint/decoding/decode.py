"""The decoding loop. Exact sampling, parallel sampling, the joint sampler: all are settings of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.decoding.policy import Policy
from dlmjoint.models.base import Base
from dlmjoint.random import Noise
from dlmjoint.types import Canvas, Commit, Prediction, Step

CHUNK = 1 << 24
"""Logits held at once while ranking columns: 128 MiB in float64."""


@torch.inference_mode()
def decode(base: Base, canvas: Canvas, policy: Policy, noise: Noise) -> Iterator[Step]:
    """Yield one Step per base forward until no mask is left.

    `policy` must have been prepared for this base (`Policy.prepare`). Rows are independent: each
    is decoded as it would be alone, and a finished row is left as it is.
    """
    memory = policy.cache.memory()
    forward = 0
    while (unfinished := canvas.masked.any(-1)).any():
        window = policy.cache.window(canvas, memory)
        prediction = base.predict(canvas, window, memory)
        commits = [_fill(base, prediction, canvas, policy, noise)]
        canvas = canvas.write(commits[0])
        quota = policy.schedule.commits(forward, canvas.masked.sum(-1))
        passes = torch.zeros_like(quota)
        candidates = _rank(base, prediction, canvas, policy, noise)
        for depth in range(int(quota.max())):
            rows = (quota > depth) & canvas.masked.any(-1)
            if depth > 0:
                refined = policy.refine(base, prediction, canvas)
                passes += policy.refine.passes * rows
                if refined is not prediction:
                    prediction = refined
                    candidates = _rank(base, prediction, canvas, policy, noise)
            commits.append(_commit_one(base, prediction, canvas, policy, noise, candidates, rows))
            canvas = canvas.write(commits[-1])
        written = sum(len(commit.rows) for commit in commits)
        assert written or not quota.any(), f"{policy} wrote nothing in a forward"
        yield Step(canvas, tuple(commits), unfinished.long(), passes, window)
        forward += 1


@dataclass(frozen=True)
class Candidates:
    """How much each open cell of the canvas wants to be next."""

    rank: Float[Tensor, "B L"]
    """-inf where nothing may be written."""


def _open(canvas: Canvas, window: slice, block_length: int | None) -> Bool[Tensor, "B L"]:
    """The cells that may be written now: masks inside the window and the row's current block."""
    inside = torch.zeros_like(canvas.attends)
    inside[:, window] = True
    cells = canvas.masked & inside
    if block_length is not None:
        columns = torch.arange(cells.shape[1], device=cells.device) - canvas.response.start
        block = columns.div(block_length, rounding_mode="floor").expand_as(cells)
        first = block.masked_fill(~canvas.masked, cells.shape[1]).amin(-1, keepdim=True)
        cells = cells & (block == first)
    return cells


def _rank(
    base: Base, prediction: Prediction, canvas: Canvas, policy: Policy, noise: Noise
) -> Candidates:
    """Rank the masked cells, in chunks: only masked columns are unembedded, and no more than
    `CHUNK` logits exist at a time."""
    rows, columns = canvas.masked.nonzero(as_tuple=True)
    rank = torch.full(canvas.tokens.shape, -torch.inf, dtype=torch.float64, device=rows.device)
    for part in torch.arange(len(rows)).split(max(1, CHUNK // base.vocab_size)):
        some = rows[part], columns[part]
        log_probs = policy.draw.log_probs(base.unembed(prediction.hidden[some]))
        rank[some] = policy.order.rank(
            log_probs, some[0], some[1] - canvas.response.start, noise
        ).double()
    return Candidates(rank)


def _commit_one(
    base: Base,
    prediction: Prediction,
    canvas: Canvas,
    policy: Policy,
    noise: Noise,
    candidates: Candidates,
    wanted: Bool[Tensor, " B"],
) -> Commit:
    """One token in each wanted row, at the open column its order ranks first."""
    cells = _open(canvas, prediction.window, policy.block_length)
    rows = (wanted & cells.any(-1)).nonzero().squeeze(-1)
    rank = candidates.rank.masked_fill(~cells, -torch.inf)[rows]
    columns = rank.argmax(-1)
    return _draw(base, prediction, canvas, policy, noise, rows, columns)


def _draw(
    base: Base,
    prediction: Prediction,
    canvas: Canvas,
    policy: Policy,
    noise: Noise,
    rows: Int[Tensor, " C"],
    columns: Int[Tensor, " C"],
) -> Commit:
    """Draw the tokens of some cells."""
    log_probs = policy.draw.log_probs(base.unembed(prediction.hidden[rows, columns]))
    tokens = policy.draw.pick(log_probs, rows, columns - canvas.response.start, noise)
    chosen = log_probs.gather(-1, tokens[:, None]).squeeze(-1)
    return Commit(rows, columns, tokens, chosen)


def _fill(
    base: Base, prediction: Prediction, canvas: Canvas, policy: Policy, noise: Noise
) -> Commit:
    """The most probable token in every mask of the rows that finish early."""
    early = policy.early.rows(base, prediction, canvas)
    rows, columns = (canvas.masked & early[:, None]).nonzero(as_tuple=True)
    greedy = replace(policy, draw=replace(policy.draw, temperature=0.0))
    return _draw(base, prediction, canvas, greedy, noise, rows, columns)
