"""Which pairs of states a batch trains on: from a start state, so many passes later, to a target.

A window of W consecutive states holds W - j pairs at depth j. What a recipe pays for them - base
forwards, sampler passes - is decided here; how they are computed is one procedure for all.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from dlmjoint.distill.unrolling.unroll import UnrollBatch
from dlmjoint.errors import ConfigError
from dlmjoint.random import derive_seed


@dataclass(frozen=True)
class Plan:
    """The work of one batch."""

    states: tuple[int, ...]
    """The states of the window the base is run on."""
    starts: int
    """Unrolls begin at the states 0 .. starts - 1."""
    weights: tuple[float, ...]
    """Weight of every depth from 1 to the last that is unrolled; nothing is computed for a loss of
    weight 0."""

    def pairs(self, window: int) -> int:
        """Pairs per window that a loss is taken of."""
        depths = enumerate(self.weights, 1)
        return sum(min(self.starts, window - depth) for depth, weight in depths if weight)

    def passes(self, window: int) -> int:
        """Sampler passes per window."""
        return sum(min(self.starts, window - depth) for depth in range(1, len(self.weights) + 1))


def weights_of(depth: int, weights: list[float] | None) -> list[float]:
    """One weight per depth. Raises ConfigError if that cannot be."""
    if depth < 1:
        raise ConfigError(f"depth is {depth}, expected at least 1 pass")
    weights = weights or [1.0] * depth
    if len(weights) != depth:
        raise ConfigError(f"depth_weights has {len(weights)} entries, expected depth={depth}")
    if min(weights) < 0 or not any(weights):
        raise ConfigError(f"depth_weights is {weights}, expected none below 0 and one above")
    return weights


class Pairs(ABC):
    """Chooses the pairs of each batch."""

    @abstractmethod
    def plan(self, weights: tuple[float, ...], batch: UnrollBatch) -> Plan:
        """The batch's work; `weights` are the weights of all depths that may be trained."""

    def cells(self, batch: UnrollBatch, pad_id: int) -> Bool[Tensor, "B W L"]:
        """The cells a loss is taken over: all masks of the response."""
        return batch.masked


@dataclass(frozen=True)
class AllDepths(Pairs):
    """Every pair of the window at every depth. A state's one base forward is the start of the
    unrolls that begin there and the target of those that end there: W forwards for up to
    (W - 1) x depth pairs, where the paper's recipe spends two forwards on each."""

    starts: int | None = None
    """Unrolls begin at so many of the window's first states; at all that have a target by default.
    One unroll trains on fewer pairs than all of a window's, and on more windows in the same time."""

    def __post_init__(self) -> None:
        if self.starts is not None and self.starts < 1:
            raise ConfigError(f"starts is {self.starts}, expected at least 1 state to unroll from")

    def plan(self, weights: tuple[float, ...], batch: UnrollBatch) -> Plan:
        """All of it, from the starts that are wanted."""
        width = batch.states.shape[1]
        starts = min(self.starts or width, width - 1)
        return Plan(tuple(range(min(starts + len(weights), width))), starts, weights)


@dataclass(frozen=True)
class OneDepth(Pairs):
    """ADJUST's recipe (its training code, `forward_pass_diffusion`): one depth per batch, the base
    run on the first state and on the target alone.

    The depth is drawn with probabilities softmax(decay^0, decay^1, ...), their code's distribution,
    not the normalised powers its text suggests. One draw per batch here; theirs has one per process.
    """

    decay: float = 0.5
    """Base of the powers."""
    skip_padding: bool = True
    """Leave out cells that end as padding, in Dream the end-of-text as well."""

    def plan(self, weights: tuple[float, ...], batch: UnrollBatch) -> Plan:
        """One start, one depth; where depths are weighted, it is drawn by probability x weight."""
        powers = torch.tensor([self.decay**k for k in range(len(weights))], dtype=torch.float64)
        chances = powers.softmax(0) * torch.tensor(weights, dtype=torch.float64)
        generator = torch.Generator().manual_seed(derive_seed(batch.seed, "depth"))
        depth = int(chances.multinomial(1, generator=generator)) + 1
        return Plan((0, depth), 1, (0.0,) * (depth - 1) + (1.0,))

    def cells(self, batch: UnrollBatch, pad_id: int) -> Bool[Tensor, "B W L"]:
        """Masks that do not end as padding."""
        if not self.skip_padding:
            return batch.masked
        return batch.masked & (batch.ended != pad_id)[:, None]
