"""Windows the sampler writes itself, so that it learns on what its own mistakes lead to.

Trajectories are the base's; in use the sampler sees canvases of its own tokens. Here some windows of
a batch keep their first state only: the others are what a decoding with the sampler as it is now
would write from there, one base forward, W - 1 tokens. Targets are the base on those very canvases,
so they stay exact. (Ours; the idea is GKD's, arXiv 2306.13649, and DAgger's before it.)
"""

from dataclasses import dataclass, field, replace
from inspect import unwrap

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early import Never
from dlmjoint.decoding.looks.cells import Grid
from dlmjoint.decoding.order import LowEntropy, Order
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.distill.unrolling.unroll import UnrollBatch
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.joint import JointSampler
from dlmjoint.random import Noise, derive_seed


@dataclass(frozen=True)
class OnPolicy:
    """How many windows are the sampler's own, and how it writes them."""

    rate: float = 0.5
    """Share of the windows, in the end."""
    start: float = 0.0
    """Share at the first step."""
    ramp: int = 0
    """Steps over which the share moves from `start` to `rate`, linearly; 0: `rate` from the first."""
    draw: Draw = field(default_factory=Draw)
    """Temperature, top-p and forbidden ids of the writing: those of the trajectories."""
    order: Order = field(default_factory=LowEntropy)
    """Which column comes next: the order of the trajectories."""
    block_length: int | None = None
    """Blocks of the trajectories, where they have any."""

    def __post_init__(self) -> None:
        for name in ("rate", "start"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected between 0 and 1")
        if self.ramp < 0:
            raise ConfigError(f"ramp is {self.ramp}, expected at least 0 steps")

    def share(self, step: int) -> float:
        """The share of own windows at an optimizer step."""
        if step >= self.ramp:
            return self.rate
        return self.start + (self.rate - self.start) * step / self.ramp

    def rewrite(
        self,
        batch: UnrollBatch,
        base: Base,
        sampler: JointSampler,
        step: int,
        *,
        in_step: bool = False,
    ) -> UnrollBatch:
        """The batch with some windows written by the sampler. Which, and every draw, depends on the
        batch's seed and the row's place in the whole batch alone.

        With `in_step` a process whose rows none were chosen of makes the others' calls all the same:
        where weights are spread over processes, every call gathers them.
        """
        canvas = batch.canvas([0])
        open_cells = canvas.masked
        if self.block_length is not None:
            open_cells &= Grid(self.block_length).first(canvas)  # a forward stays in its block
        wide_enough = (open_cells.sum(-1) >= batch.states.shape[1] - 1).cpu()
        chances = [_chance(batch.seed, place) for place in batch.places]
        chosen = (torch.tensor(chances) < self.share(step)) & wide_enough
        if not chosen.any():
            if in_step and self.share(step) > 0:
                _same_calls(batch, base, sampler)
            return batch
        states = batch.states.clone()
        rows = chosen.to(states.device)
        states[rows] = self._written(batch, base, sampler, rows)
        return replace(batch, states=states, hidden=None)

    def _written(
        self, batch: UnrollBatch, base: Base, sampler: JointSampler, rows: Bool[Tensor, " B"]
    ) -> Tensor:
        """The windows of some rows: their first state and W - 1 tokens more, one at a time."""
        width = batch.states.shape[1]
        policy = Policy(
            width - 1,
            order=self.order,
            draw=self.draw,
            refine=Joint(sampler),
            block_length=self.block_length,
        ).prepare(base)
        # The window is a block of a text that went on: an end in it, a prompt's, is not to stop it.
        policy = replace(policy, early=Never())
        canvas = batch.canvas([0]).select(rows)
        places = [p for p, kept in zip(batch.places, rows.tolist(), strict=True) if kept]
        noise = Noise(derive_seed(batch.seed, "on-policy"), tuple(places))
        modes = sampler.training
        nn.Module.eval(sampler)
        # Without decode's inference mode: weights gathered in it could not be trained with.
        with torch.no_grad():
            step = next(unwrap(decode)(base, canvas, policy, noise))
        nn.Module.train(sampler, modes)
        states = [canvas.tokens]
        for commit in step.commits:
            canvas = canvas.write(commit)
            states.append(canvas.tokens)
        return torch.stack(states, dim=1)


@torch.no_grad()
def _same_calls(batch: UnrollBatch, base: Base, sampler: JointSampler) -> None:
    """The forward and the passes that writing a window takes, on one row and for nothing."""
    first = torch.arange(len(batch.states), device=batch.states.device) == 0
    canvas = batch.canvas([0]).select(first)
    hidden, embedding = base.predict(canvas).hidden, base.embed(canvas.tokens)
    for _ in range(batch.states.shape[1] - 2):
        sampler(embedding, hidden, canvas.positions, canvas.attends)


def _chance(seed: int, place: int) -> float:
    generator = torch.Generator().manual_seed(derive_seed(seed, place, "own"))
    return float(torch.rand((), generator=generator))
