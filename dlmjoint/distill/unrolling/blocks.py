"""Trajectories of bases that write block after block, as the trajectories of their blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.distill.unrolling.unroll import UnrollBatch
from dlmjoint.models.base import Base
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.types import Trajectory


def by_blocks(
    trajectories: Sequence[Trajectory], block_length: int, end_ids: Sequence[int]
) -> list[Trajectory]:
    """Every whole block of every trajectory that was written, as one of its own: the prompt is all that
    lies before the block, the response is the block, what the prompt or an anchor wrote of it included.

    A window of states then lies inside a block, and nothing behind the block is computed. Blocks
    behind the end of a text were never written. A block that the canvas ends in is left out: batches
    want responses of one length, and no text is meant to end there.
    """
    return [
        block for trajectory in trajectories for block in _blocks(trajectory, block_length, end_ids)
    ]


def _blocks(trajectory: Trajectory, length: int, end_ids: Sequence[int]) -> list[Trajectory]:
    ids = torch.cat([trajectory.prompt, trajectory.response])
    places = trajectory.order + len(trajectory.prompt)
    last = _last_written(trajectory, end_ids) + len(trajectory.prompt)
    begins = range(len(trajectory.prompt) // length * length, last + 1, length)
    found = []
    for start in begins:
        written = (places >= start) & (places < start + length)
        if written.any() and start + length <= len(ids):
            found.append(
                replace(
                    trajectory,
                    prompt=ids[:start],
                    response=ids[start : start + length],
                    order=places[written] - start,
                    log_probs=trajectory.log_probs[written],
                )
            )
    return found


def _last_written(trajectory: Trajectory, end_ids: Sequence[int]) -> int:
    """The response column of the first end of the text, or the last column."""
    ends = torch.isin(trajectory.response, torch.tensor(list(end_ids)))
    return int(ends.long().argmax()) if bool(ends.any()) else len(ends) - 1


@dataclass(frozen=True)
class Packed:
    """Some states of every window behind each other in one row, behind what lies before the block: the
    prefix is computed once for all of them. A state sees the prefix and itself."""

    tokens: Int[Tensor, "B Q"]
    positions: Int[Tensor, "B Q"]
    seen: Bool[Tensor, "B Q Q"]
    """Which column (second axis) sees which (third)."""
    current: Bool[Tensor, "B Q"]
    """The columns of the block that is being written."""
    prefix: int
    """Columns of the prefix."""
    states: int
    """Number of states."""

    @classmethod
    def of(cls, base: Base, batch: UnrollBatch, states: slice | Sequence[int]) -> "Packed":
        """Some states of a batch over a base that writes block after block."""
        chosen = batch.states[:, states if isinstance(states, slice) else list(states)]
        count, start, canvas = chosen.shape[1], batch.response.start, batch.canvas([0])
        current = base.attention.current(canvas)
        assert current is not None

        def packed(part: Tensor) -> Tensor:
            return torch.cat([part[:, :start], part[:, start:].repeat(1, count)], dim=1)

        blocks, attends = packed(base.attention.blocks(canvas.positions)), packed(canvas.attends)
        width = chosen.shape[2] - start
        owner = torch.arange(count, device=chosen.device).repeat_interleave(width)
        owner = torch.cat([owner.new_full((start,), -1), owner])
        own = (owner[None, :] < 0) | (owner[None, :] == owner[:, None])
        return cls(
            tokens=torch.cat([chosen[:, 0, :start], chosen[:, :, start:].flatten(1)], dim=1),
            positions=packed(canvas.positions),
            seen=(blocks[:, None, :] <= blocks[:, :, None]) & attends[:, None, :] & own,
            current=packed(current) & (owner >= 0),
            prefix=start,
            states=count,
        )

    def parts(
        self, hidden: Float[Tensor, "B Q D"]
    ) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B S N D"]]:
        """What is said of the prefix, and of the responses of the states."""
        responses = hidden[:, self.prefix :].unflatten(1, (self.states, -1))
        return hidden[:, : self.prefix], responses


def predict_blocks(
    base: TransformerBase, batch: UnrollBatch, states: Sequence[int]
) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B S N D"]]:
    """The base's hidden states of what lies before the blocks, and of some states of the blocks."""
    packed = Packed.of(base, batch, states)
    return packed.parts(base.run(packed.tokens, packed.positions, packed.seen))


def unroll_blocks(
    base: Base,
    sampler: JointSampler,
    batch: UnrollBatch,
    prefix: Float[Tensor, "B P D"],
    start: Float[Tensor, "B S N D"],
    depth: int,
) -> Iterator[Float[Tensor, "B A N D"]]:
    """`unroll` of windows that lie inside blocks, of their responses alone; `prefix` holds the base's
    hidden states of what lies before them, which no pass changes."""
    hidden, width = start, batch.states.shape[1]
    for passes in range(1, min(depth, width - 1) + 1):
        alive = min(start.shape[1], width - passes)
        packed = Packed.of(base, batch, slice(passes, passes + alive))
        after = sampler(
            base.embed(packed.tokens),
            torch.cat([prefix, hidden[:, :alive].flatten(1, 2)], dim=1),
            packed.positions,
            packed.seen,
            packed.current,
        )
        hidden = packed.parts(after)[1]
        yield hidden
