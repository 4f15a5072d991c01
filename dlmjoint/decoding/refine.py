"""What a commit changes elsewhere, before the next base forward."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from torch import nn

from dlmjoint.models.base import Base
from dlmjoint.models.joint import JointSampler
from dlmjoint.types import Canvas, Prediction


class Refine(ABC):
    """Renews the prediction after a commit."""

    passes: ClassVar[int]
    """Sampler passes one call costs."""

    @property
    def writer(self) -> Literal["base", "sampler"]:
        """Whose distribution a refined prediction is."""
        return "sampler" if self.passes else "base"

    def prepare(self, base: Base) -> "Refine":
        """What the loop calls, with anything heavy loaded and checked against the base."""
        return self

    @abstractmethod
    def __call__(self, base: Base, prediction: Prediction, canvas: Canvas) -> Prediction:
        """The prediction for the canvas as it is now."""


@dataclass(frozen=True)
class Marginals(Refine):
    """Nothing: tokens of one forward are drawn from their marginals, independently."""

    passes: ClassVar[int] = 0

    def __call__(self, base: Base, prediction: Prediction, canvas: Canvas) -> Prediction:
        """The same prediction."""
        return prediction


@dataclass(frozen=True, eq=False)
class Joint(Refine):
    """One pass of a joint sampler: the next token is drawn given those just written."""

    sampler: JointSampler
    passes: ClassVar[int] = 1

    def prepare(self, base: Base) -> "Joint":
        """Itself, if the sampler was trained for this base; raises MismatchError otherwise."""
        self.sampler.check(base)
        nn.Module.to(self.sampler, base.device)
        return self

    def __call__(self, base: Base, prediction: Prediction, canvas: Canvas) -> Prediction:
        """The sampler's hidden states in place of the base's."""
        hidden = self.sampler(
            base.embed(canvas.tokens), prediction.hidden, canvas.positions, canvas.attends
        )
        return Prediction(hidden, prediction.fresh)


@dataclass(frozen=True)
class Trained(Refine):
    """A joint sampler named by its folder or hub id: what a config file writes."""

    sampler: Path | str
    """Folder or hub id of a published sampler."""
    passes: ClassVar[int] = 1

    def prepare(self, base: Base) -> Joint:
        """The sampler loaded in the base's dtype: in float32 beside a bfloat16 base its passes
        would cost several times what they should. To keep another dtype, load it for a `Joint`."""
        sampler = JointSampler.from_pretrained(self.sampler, dtype=base.dtype)
        return Joint(sampler).prepare(base)

    def __call__(self, base: Base, prediction: Prediction, canvas: Canvas) -> Prediction:
        """Not callable before `prepare`: loading inside the loop would be repeated every forward."""
        raise RuntimeError("Policy.prepare(base) loads the sampler first; generate() does that")
