"""How the base is asked: about the canvas, or with and without its prompt."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas, Prediction


class Forward(ABC):
    """One prediction of the base."""

    forwards: ClassVar[int]
    """Base forwards it costs per row."""

    def prepare(self, base: Base) -> "Forward":
        """What the loop calls, with anything heavy loaded."""
        return self

    def speaker(self, base: Base) -> Base:
        """Whose hidden states the prediction holds, and so whose head reads them."""
        return base

    @abstractmethod
    def __call__(
        self, base: Base, canvas: Canvas, renew: Bool[Tensor, "B L"], memory: CanvasMemory | None
    ) -> Prediction:
        """The prediction, with `renew` and `memory` as in `Base.predict`."""


@dataclass(frozen=True)
class Conditional(Forward):
    """The base's own prediction."""

    forwards: ClassVar[int] = 1

    def __call__(
        self, base: Base, canvas: Canvas, renew: Tensor, memory: CanvasMemory | None
    ) -> Prediction:
        """One forward."""
        return base.predict(canvas, None if memory is None else renew, memory)


@dataclass(frozen=True)
class ClassifierFree(Forward):
    """Classifier-free guidance (LLaDA's `cfg_scale`): logits l are moved away from the logits u of
    the canvas whose prompt is masked, u + (scale + 1)(l - u).

    Done to the hidden states, which is the same for a linear head, so that a joint sampler works on
    the guided ones. Both canvases are rows of one batch: twice the compute of a forward.
    """

    scale: float
    """0 is the base itself."""
    forwards: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ConfigError(f"scale is {self.scale}, expected 0 or more")

    def __call__(
        self, base: Base, canvas: Canvas, renew: Tensor, memory: CanvasMemory | None
    ) -> Prediction:
        """Two forwards, one of them without the prompt."""
        blind = canvas.tokens.clone()
        prompt = slice(0, canvas.response.start)
        blind[:, prompt] = blind[:, prompt].masked_fill(canvas.attends[:, prompt], canvas.mask_id)
        both = replace(
            canvas,
            tokens=torch.cat([canvas.tokens, blind]),
            attends=canvas.attends.repeat(2, 1),
            anchors=None,
        )
        found = base.predict(both, None if memory is None else renew.repeat(2, 1), memory)
        seen, unseen = found.hidden.chunk(2)
        return Prediction(unseen + (self.scale + 1) * (seen - unseen), renew)
