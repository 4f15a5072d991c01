"""EB-Sampler (arXiv 2505.24857): as many tokens as a bound on their entropy allows."""

from dataclasses import dataclass

from torch import Tensor

from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.schedules.adaptive import Adaptive
from dlmjoint.errors import ConfigError


@dataclass(frozen=True)
class EntropyBound(Adaptive):
    """While the entropies of all tokens but the most uncertain add up to at most `nats` (EB-Sampler,
    arXiv 2505.24857): a bound on the dependence that drawing them apart ignores.

    Cells come in the policy's order; with `LowEntropy()` and marginals the last is the most
    uncertain, so the sum is that of the tokens before it.
    """

    nats: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nats < 0:
            raise ConfigError(f"nats is {self.nats}, expected 0 or more")

    def price(self, depth: Tensor, cells: Cells) -> Tensor:
        """Its entropy."""
        return cells.look.entropy.double()

    def allows(self, depth: Tensor, cells: Cells, spent: Tensor) -> Tensor:
        """While what was spent before this token is within the bound."""
        return spent <= self.nats
