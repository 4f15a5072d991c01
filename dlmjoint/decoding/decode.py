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
    writer = Writer(base, policy, noise)
    memory = policy.cache.memory()
    forward = 0
    while (unfinished := canvas.masked.any(-1)).any():
        window = policy.cache.window(canvas, memory)
        prediction = base.predict(canvas, window, memory)
        commits = [writer.fill(prediction, canvas, policy.early.rows(base, prediction, canvas))]
        canvas = canvas.write(commits[0])
        quota = policy.schedule.commits(forward, canvas.masked.sum(-1))
        passes = torch.zeros_like(quota)
        rank = writer.rank(prediction, canvas)
        for depth in range(int(quota.max())):
            rows = (quota > depth) & canvas.masked.any(-1)
            if depth > 0:
                refined = policy.refine(base, prediction, canvas)
                passes += policy.refine.passes * rows
                if refined is not prediction:
                    prediction, rank = refined, writer.rank(refined, canvas)
            commits.append(writer.one_per_row(prediction, canvas, rank, rows))
            canvas = canvas.write(commits[-1])
        written = sum(len(commit.rows) for commit in commits)
        assert written or not quota.any(), f"{policy} wrote nothing in a forward"
        yield Step(canvas, tuple(commits), unfinished.long(), passes, window)
        forward += 1


@dataclass(frozen=True)
class Writer:
    """Turns predictions into commits, by the policy's order and draw."""

    base: Base
    policy: Policy
    noise: Noise

    def rank(self, prediction: Prediction, canvas: Canvas) -> Float[Tensor, "B L"]:
        """How early each masked cell wants to be written; -inf where nothing is masked.

        Only masked columns are unembedded, and no more than `CHUNK` logits exist at a time.
        """
        rows, columns = canvas.masked.nonzero(as_tuple=True)
        rank = torch.full(canvas.tokens.shape, -torch.inf, dtype=torch.float64, device=rows.device)
        for part in torch.arange(len(rows)).split(max(1, CHUNK // self.base.vocab_size)):
            some, places = (rows[part], columns[part]), columns[part] - canvas.response.start
            log_probs = self.policy.draw.log_probs(self.base.unembed(prediction.hidden[some]))
            rank[some] = self.policy.order.rank(log_probs, some[0], places, self.noise).double()
        return rank

    def one_per_row(
        self,
        prediction: Prediction,
        canvas: Canvas,
        rank: Float[Tensor, "B L"],
        wanted: Bool[Tensor, " B"],
    ) -> Commit:
        """One token in each wanted row, at the open column its order ranks first."""
        cells = self._open(canvas, prediction.window)
        rows = (wanted & cells.any(-1)).nonzero().squeeze(-1)
        columns = rank.masked_fill(~cells, -torch.inf)[rows].argmax(-1)
        return self._draw(prediction, canvas, rows, columns)

    def fill(self, prediction: Prediction, canvas: Canvas, finished: Bool[Tensor, " B"]) -> Commit:
        """The most probable token in every mask of the rows that finish early."""
        greedy = replace(self.policy, draw=replace(self.policy.draw, temperature=0.0))
        rows, columns = (canvas.masked & finished[:, None]).nonzero(as_tuple=True)
        return replace(self, policy=greedy)._draw(prediction, canvas, rows, columns)

    def _open(self, canvas: Canvas, window: slice) -> Bool[Tensor, "B L"]:
        """The cells that may be written: masks inside the window and the row's current block."""
        inside = torch.zeros_like(canvas.attends)
        inside[:, window] = True
        cells = canvas.masked & inside
        if self.policy.block_length is None:
            return cells
        columns = torch.arange(cells.shape[1], device=cells.device) - canvas.response.start
        block = columns.div(self.policy.block_length, rounding_mode="floor").expand_as(cells)
        first = block.masked_fill(~canvas.masked, cells.shape[1]).amin(-1, keepdim=True)
        return cells & (block == first)

    def _draw(
        self,
        prediction: Prediction,
        canvas: Canvas,
        rows: Int[Tensor, " C"],
        columns: Int[Tensor, " C"],
    ) -> Commit:
        """Draw the tokens of some cells."""
        draw, places = self.policy.draw, columns - canvas.response.start
        log_probs = draw.log_probs(self.base.unembed(prediction.hidden[rows, columns]))
        tokens = draw.pick(log_probs, rows, places, self.noise)
        return Commit(rows, columns, tokens, log_probs.gather(-1, tokens[:, None]).squeeze(-1))
