"""Windows of consecutive trajectory states, and the sampler unrolled along them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.joint import JointSampler
from dlmjoint.types import Canvas, Trajectory


@dataclass
class UnrollBatch:
    """Windows of W consecutive states: state w + 1 is state w with one more token.

    Nothing here changes one, but Lightning casts batches field by field under FSDP and DeepSpeed and
    refuses frozen ones.
    """

    states: Int[Tensor, "B W L"]
    attends: Bool[Tensor, "B L"]
    final: Int[Tensor, "B L"] | None
    """The prompt and the response the trajectory ends in; None while that is not known."""
    response: slice
    mask_id: int
    seed: int
    """Of everything that is drawn while training on this batch."""
    places: tuple[int, ...]
    """Of each row in the whole batch, over all processes."""
    hidden: Float[Tensor, "B W L D"] | None = None
    """The base's hidden states of every state, where the trajectories' own decoding left them."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "UnrollBatch":
        """The same batch on another device (Lightning moves frozen dataclasses by this method)."""
        known = {"final": self.final, "hidden": self.hidden}
        moved = {
            k: v.to(device, non_blocking=non_blocking) for k, v in known.items() if v is not None
        }
        return replace(
            self,
            states=self.states.to(device, non_blocking=non_blocking),
            attends=self.attends.to(device, non_blocking=non_blocking),
            **moved,
        )

    @property
    def ended(self) -> Int[Tensor, "B L"]:
        """`final`. Raises ConfigError where it is not known."""
        if self.final is None:
            raise ConfigError(
                "windows of decodings that are not finished do not show the tokens they end in: take "
                "another divergence, pairs without skip_padding, or stored trajectories"
            )
        return self.final

    @property
    def masked(self) -> Bool[Tensor, "B W L"]:
        """Masks inside the response."""
        inside = torch.zeros_like(self.attends)
        inside[:, self.response] = True
        return (self.states == self.mask_id) & inside[:, None]

    def canvas(self, states: slice | Sequence[int] = slice(None)) -> Canvas:
        """Some states of every window, all by default, as the rows of one canvas, window by window."""
        part = self.states[:, states if isinstance(states, slice) else list(states)]
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
    trajectories: list[Trajectory],
    starts: list[int],
    width: int,
    mask_id: int,
    pad_id: int,
    seed: int = 0,
    places: tuple[int, ...] | None = None,
) -> UnrollBatch:
    """A batch of windows, prompts padded on the left; `places` count the rows by default."""
    prompt = max(len(trajectory.prompt) for trajectory in trajectories)
    length = len(trajectories[0].response)
    states = torch.full((len(trajectories), width, prompt + length), pad_id)
    final = torch.full((len(trajectories), prompt + length), pad_id)
    attends = torch.zeros(len(trajectories), prompt + length, dtype=torch.bool)
    for row, (trajectory, start) in enumerate(zip(trajectories, starts, strict=True)):
        first = prompt - len(trajectory.prompt)
        states[row, :, first:prompt] = final[row, first:prompt] = trajectory.prompt
        states[row, :, prompt:] = window(trajectory, start, width, mask_id)
        final[row, prompt:] = trajectory.response
        attends[row, first:] = True
    return UnrollBatch(
        states,
        attends,
        final,
        slice(prompt, prompt + length),
        mask_id,
        seed,
        tuple(range(len(trajectories))) if places is None else places,
    )


def unroll(
    base: Base,
    sampler: JointSampler,
    batch: UnrollBatch,
    start: Float[Tensor, "B S L D"],
    depth: int,
) -> Iterator[Float[Tensor, "B A L D"]]:
    """Yield the sampler's hidden states after 1, 2, ... `depth` passes, teacher-forced.

    `start` holds the base's hidden states of the window's first S states, where unrolls begin. After
    j passes, entry (b, i) is about state i + j, reached from state i; of the starts are left those
    A = min(S, W - j) whose target is in the window.
    """
    hidden, width = start, batch.states.shape[1]
    for passes in range(1, min(depth, width - 1) + 1):
        alive = min(start.shape[1], width - passes)
        canvas = batch.canvas(slice(passes, passes + alive))
        after = sampler(
            base.embed(canvas.tokens),
            hidden[:, :alive].flatten(0, 1),
            canvas.positions,
            canvas.attends,
            base.attention.current(canvas),
        )
        hidden = after.unflatten(0, (len(batch.states), alive))
        yield hidden
