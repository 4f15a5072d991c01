"""What happened in a decoding, as plain data: the terminal and the page show nothing else."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dlmjoint.clock import clock
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.random import Noise
from dlmjoint.show.pieces import Piece, Speller
from dlmjoint.trajectories.tally import Tally
from dlmjoint.types import Canvas, Commit, Step

WRITERS = {"base": "base", "sampler": "joint sampler", "fill": "early fill", "end": "after the end"}
"""The values of `Commit.writer`, in words."""


@dataclass(frozen=True)
class Written:
    """One token on the canvas."""

    column: int
    """Of the response, from 0."""
    token: int
    """Its id."""
    writer: str
    """Whose distribution it was drawn from: base, sampler or fill."""
    prob: float
    """Under that distribution."""
    step: int
    """The base forward that led to it, from 1."""


class Recording:
    """One row's decoding, step by step. Step 0 is the blank canvas, step s what stands there after
    the s-th base forward."""

    def __init__(self, base: Base, canvas: Canvas) -> None:
        """Ready for the steps of a decoding that begins with this canvas.

        Raises ConfigError if the base has no tokenizer, ValueError if the canvas has more rows than
        one or is partly written already.
        """
        if base.tokenizer is None:
            raise ConfigError(f"{base.name} has no tokenizer: there is no text to show")
        if len(canvas.tokens) != 1 or canvas.anchors is not None:
            raise ValueError("a recording is of one row that begins with nothing but masks")
        self._base, self.speller = base, Speller(base.tokenizer)
        self._start = canvas.response.start
        self.length = canvas.response.stop - canvas.response.start
        self.prompt: list[Piece] = self.speller.pieces(canvas.tokens[0, : self._start].tolist())
        self.written: list[Written] = []
        """All tokens so far, in writing order."""
        self.refused: list[list[Written]] = [[]]
        """After each step, from step 0: the drafts that were taken back in it."""
        self.costs: list[Tally] = [Tally(eos_id=base.eos_id)]
        """What the decoding had cost after each step, from step 0."""

    @property
    def last(self) -> int:
        """Number of the newest step."""
        return len(self.costs) - 1

    def add(self, step: Step, seconds: float) -> None:
        """Take in the next step; `seconds` is how long the decoding had run after it."""
        for commit in step.commits:
            self.written += self._entries(commit)
        self.refused.append([] if step.refused is None else self._entries(step.refused))
        cost = replace(self.costs[-1], seconds=seconds)
        cost.add(step)
        self.costs.append(cost)

    def _entries(self, commit: Commit) -> list[Written]:
        return [
            Written(column - self._start, token, commit.writer, math.exp(log_prob), len(self.costs))
            for column, token, log_prob in commit.entries()[0]
        ]

    def ids(self, step: int) -> list[int | None]:
        """The response's ids after a step; None where there is a mask."""
        ids: list[int | None] = [None] * self.length
        for entry in self.written[: self.costs[step].tokens]:
            ids[entry.column] = entry.token
        return ids

    def pieces(self, step: int) -> list[Piece]:
        """The response after a step, as it is shown."""
        return self.speller.pieces(self.ids(step))

    def wrote(self, step: int) -> list[Written]:
        """The tokens of one step, in writing order."""
        before = self.costs[step - 1].tokens if step else 0
        return self.written[before : self.costs[step].tokens]

    def text(self) -> str:
        """The answer so far: up to end-of-text, without special tokens and masks."""
        return self._base.decode([token for token in self.ids(self.last) if token is not None])


def follow(base: Base, canvas: Canvas, policy: Policy, noise: Noise) -> Iterator[Recording]:
    """Decode and yield the recording, one and the same, before the first step and after each.

    `policy` must have been prepared for this base. Only the decoding's own time is counted, not
    what is done between two steps with what they wrote.
    """
    recording = Recording(base, canvas)
    yield recording
    seconds, since = 0.0, clock(base.device)
    for step in decode(base, canvas, policy, noise):
        seconds += clock(base.device) - since
        recording.add(step, seconds)
        yield recording
        since = clock(base.device)


def cost_line(cost: Tally) -> str:
    """A cost in one line; models that were not asked are left out."""
    return ", ".join(f"{value} {name}" for name, value in cost_table(cost))


def cost_table(cost: Tally) -> list[tuple[str, str]]:
    """A cost as names and values; sampler and guide only if they were asked, rates only once
    there is something to divide."""
    rows = [("tokens", str(cost.tokens)), ("base forwards", str(cost.base_forwards))]
    if cost.canvases != cost.base_forwards:
        rows.append(("canvases", str(cost.canvases)))
    if cost.sampler_passes:
        rows.append(("sampler passes", str(cost.sampler_passes)))
    if cost.guide_passes:
        rows.append(("guide passes", str(cost.guide_passes)))
    if cost.base_forwards:
        rows.append(("tokens/forward", f"{cost.tokens / cost.base_forwards:.2f}"))
    if cost.seconds:
        rows.append(("tokens/s", f"{cost.tokens / cost.seconds:.0f}"))
    return rows
