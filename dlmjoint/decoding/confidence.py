"""Fast-dLLM's parallel decoding (arXiv 2505.22618): as many tokens as are confident."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dlmjoint.decoding.adaptive import Adaptive
from dlmjoint.errors import ConfigError


@dataclass(frozen=True)
class ConfidenceThreshold(Adaptive):
    """While the next token's greatest probability reaches a threshold (Fast-dLLM, arXiv 2505.22618;
    with `order=HighProbability()` and marginals it writes exactly the tokens above it)."""

    threshold: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}, expected more than 0 and at most 1")

    def accept(self, depth: int, log_probs: Tensor, spent: Tensor) -> tuple[Tensor, Tensor]:
        """Confident enough; nothing is spent."""
        return log_probs.exp().amax(-1) >= self.threshold, torch.zeros_like(spent)


@dataclass(frozen=True)
class ConfidenceFactor(Adaptive):
    """While (n + 1)(1 - c) < factor, where c is the confidence of the n-th token (Fast-dLLM's
    `factor`: the more tokens at once, the surer each must be)."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor <= 0:
            raise ConfigError(f"factor is {self.factor}, expected more than 0")

    def accept(self, depth: int, log_probs: Tensor, spent: Tensor) -> tuple[Tensor, Tensor]:
        """Confident enough for its number; nothing is spent."""
        doubt = 1 - log_probs.exp().amax(-1)
        return (depth + 2) * doubt < self.factor, torch.zeros_like(spent)
