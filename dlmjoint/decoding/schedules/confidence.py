"""Fast-dLLM's parallel decoding (arXiv 2505.22618): as many tokens as are confident."""

from dataclasses import dataclass

from torch import Tensor

from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.schedules.adaptive import Adaptive
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

    def allows(self, depth: Tensor, cells: Cells, spent: Tensor) -> Tensor:
        """Confident enough."""
        return cells.look.log_best.exp() >= self.threshold


@dataclass(frozen=True)
class ConfidenceFactor(Adaptive):
    """While (n + 1)(1 - c) < factor, where c is the confidence of the n-th token (Fast-dLLM's
    `factor`: the more tokens at once, the surer each must be)."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor <= 0:
            raise ConfigError(f"factor is {self.factor}, expected more than 0")

    def allows(self, depth: Tensor, cells: Cells, spent: Tensor) -> Tensor:
        """Confident enough for its number."""
        doubt = -cells.look.log_best.expm1()
        return (depth + 2) * doubt < self.factor
