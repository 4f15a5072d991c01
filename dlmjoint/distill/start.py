"""What a sampler is before it is trained."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch

from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase


class Start(ABC):
    """Makes the sampler a fit begins with."""

    @abstractmethod
    def __call__(self, base: TransformerBase) -> JointSampler:
        """A sampler for this base, its weights ready to be trained."""


@dataclass(frozen=True)
class LastBlock(Start):
    """A copy of the base's last block, near the identity. With AdamW it learns while a random start
    still has nothing to show; with Muon the random one is faster (docs/numbers/ablation.md)."""

    mix: float = 0.7
    """Weight of embedding and hidden state in the projection."""
    gain: float = 0.1
    """Output scale; 0 is the product of marginals."""

    def __call__(self, base: TransformerBase) -> JointSampler:
        """See `JointSampler.from_base`."""
        return JointSampler.from_base(base, mix=self.mix, gain=self.gain)


@dataclass(frozen=True)
class Random(Start):
    """PyTorch's own initialisation, as ADJUST's code has it: the layer starts by adding a random
    vector of unit root mean square to every hidden state."""

    gain: float = 1.0
    """Output scale."""

    def __call__(self, base: TransformerBase) -> JointSampler:
        """Random weights, drawn from torch's global generator: seed it."""
        sampler = JointSampler.fresh(base)
        with torch.no_grad():
            sampler.gain.weight.fill_(self.gain)
        return sampler


@dataclass(frozen=True)
class Existing(Start):
    """A trained sampler, to go on from."""

    sampler: Path | str
    """Folder or hub id."""
    any_base: bool = False
    """Take the weights of a sampler of another base too, such as an earlier state of this one."""

    def __call__(self, base: TransformerBase) -> JointSampler:
        """The sampler. Raises MismatchError if it belongs to another base; with `any_base` only if
        its weights do not fit this one."""
        sampler = JointSampler.from_pretrained(self.sampler)
        if self.any_base:
            return JointSampler.fresh(base).take(sampler.state_dict())
        sampler.check(base)
        return sampler
