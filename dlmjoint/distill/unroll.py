"""Windows of consecutive trajectory states, and the sampler unrolled along them.

One base forward per state serves twice: as the start of the unrolls that begin there, and as the
target of the shorter unrolls that end there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.models.base import Base
from dlmjoint.models.joint import JointSampler
from dlmjoint.types import Canvas, Trajectory


@dataclass(frozen=True)
class UnrollBatch:
    """Windows of W consecutive states: state w + 1 is state w with one more token."""

    states: Int[Tensor, "B W L"]
    attends: Bool[Tensor, "B L"]
    response: slice
    mask_id: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "UnrollBatch":
        """The same batch on another device (Lightning moves frozen dataclasses by this method)."""
        return replace(
            self,
            states=self.states.to(device, non_blocking=non_blocking),
            attends=self.attends.to(device, non_blocking=non_blocking),
        )

    @property
    def masked(self) -> Bool[Tensor, "B W L"]:
        """The cells a loss is taken over: masks inside the response."""
        inside = torch.zeros_like(self.attends)
        inside[:, self.response] = True
        return (self.states == self.mask_id) & inside[:, None]

    def canvas(self, first: int = 0, last: int | None = None) -> Canvas:
        """States first to last of every window as the rows of one canvas, window by window."""
        part = self.states[:, first:last]
        attends = self.attends[:, None].expand(part.shape)
        return Canvas(part.flatten(0, 1), attends.flatten(0, 1), self.response, self.mask_id)


def window(trajectory: Trajectory, start: int, width: int, mask_id: int) -> Int[Tensor, "W N"]:
    """States start .. start + width - 1 of a trajectory's response.

    `start` may be negative: the window then holds the first start + width states, so that starts
    drawn uniformly from 2 - width up make every state an equally frequent start. States past the
    end are the finished response, which has no masks and takes no part in any loss.
    """
    steps = [min(step, len(trajectory.order)) for step in range(max(start, 0), start + width)]
    steps += [len(trajectory.order)] * (width - len(steps))
    return torch.stack([trajectory.state(step, mask_id) for step in steps])


def collate(
    trajectories: list[Trajectory], starts: list[int], width: int, mask_id: int, pad_id: int
) -> UnrollBatch:
    """A batch of windows, prompts padded on the left."""
    prompt = max(len(trajectory.prompt) for trajectory in trajectories)
    length = len(trajectories[0].response)
    states = torch.full((len(trajectories), width, prompt + length), pad_id)
    attends = torch.zeros(len(trajectories), prompt + length, dtype=torch.bool)
    for row, (trajectory, start) in enumerate(zip(trajectories, starts, strict=True)):
        first = prompt - len(trajectory.prompt)
        states[row, :, first:prompt] = trajectory.prompt
        states[row, :, prompt:] = window(trajectory, start, width, mask_id)
        attends[row, first:] = True
    return UnrollBatch(states, attends, slice(prompt, prompt + length), mask_id)


def unroll(
    base: Base,
    sampler: JointSampler,
    batch: UnrollBatch,
    start: Float[Tensor, "B W L D"],
    depth: int,
) -> Iterator[Float[Tensor, "B S L D"]]:
    """Yield the sampler's hidden states after 1, 2, ... `depth` passes, teacher-forced.

    `start` holds the base's hidden states of all W states. After j passes, entry (b, i) is about
    state i + j, reached from state i; there are S = W - j such starts.
    """
    hidden = start
    for passes in range(1, min(depth, batch.states.shape[1] - 1) + 1):
        canvas = batch.canvas(passes)
        before = hidden[:, : hidden.shape[1] - 1]
        after = sampler(
            base.embed(canvas.tokens), before.flatten(0, 1), canvas.positions, canvas.attends
        )
        hidden = after.unflatten(0, before.shape[:2])
        yield hidden
