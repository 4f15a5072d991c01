"""When a row is finished at once."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from dlmjoint.models.base import Base
from dlmjoint.types import Canvas, Prediction


class EarlyCommit(ABC):
    """Decides, per row and before the forward's own commits, which rows to fill in one go."""

    @abstractmethod
    def rows(self, base: Base, prediction: Prediction, canvas: Canvas) -> Bool[Tensor, " B"]:
        """True for rows whose every remaining mask takes its most probable token now."""


@dataclass(frozen=True)
class Never(EarlyCommit):
    """Every row is decoded to its end."""

    def rows(self, base: Base, prediction: Prediction, canvas: Canvas) -> Tensor:
        """False everywhere."""
        return torch.zeros(len(canvas.tokens), dtype=torch.bool, device=canvas.tokens.device)
