"""What a sampler knows after so many commits without a base forward."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float

from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.turn import Turn
from dlmjoint.distill.chunked import chunk_size
from dlmjoint.distill.losses import forward_kl, same_top
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.kept import kept
from dlmjoint.evaluation.metrics.base import Evidence, ExampleMetric
from dlmjoint.evaluation.metrics.values import Ratios, Values
from dlmjoint.models.base import Base
from dlmjoint.trajectories.states import turns, write_recorded
from dlmjoint.types import Trajectory


@dataclass(frozen=True)
class Depth(ExampleMetric):
    """`kl@j` and `top1@j` for j = 1 .. depth: KL(base || decoder), nats per column still masked, and
    the share of columns for which both hold the same token most probable, after j recorded commits
    of an exact trajectory since the last base forward.

    Every state of every trajectory is a start. The same quantities as training's `val/kl@j` and
    `val/top1@j`, there over windows drawn at random; at temperature 1 both read the same
    distributions. A decoder without a sampler has the marginals' values, however few tokens it
    writes per forward. Intervals are bootstraps over trajectories.
    """

    needs_reference: ClassVar[bool] = True
    keeps_examples: ClassVar[bool] = True

    depth: int = 3
    """The largest j: K - 1 for K tokens per forward."""
    n: int = 128
    """Trajectories walked, at most; each costs a base forward per token."""
    batch_size: int = 32
    """Trajectories walked together."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError(f"depth is {self.depth}, expected at least 1 commit")

    def check(self, n: int, decoders: Mapping[str, Policy], exact: Policy) -> None:
        """Raise ConfigError where a KL would be infinite: greedy or truncated draws."""
        for name, policy in decoders.items():
            if policy.draw.temperature == 0 or policy.draw.top_p < 1:
                raise ConfigError(
                    f"kl@j compares distributions, and {name} draws with {policy.draw}: give the "
                    "task a draw with a temperature above 0 and top_p 1, or leave the metric out"
                )

    def examples(self, evidence: Evidence) -> dict[str, Values]:
        """See the class. Reads the sums from the cache if they were computed before."""
        chosen = [generation.trajectory() for generation in evidence.reference[: self.n]]

        def computed() -> Float[np.ndarray, "3 depth n"]:
            base, policy = evidence.replay()
            starts = range(0, len(chosen), self.batch_size)
            parts = [chosen[start : start + self.batch_size] for start in starts]
            return np.concatenate([walk(base, policy, part, self.depth) for part in parts], axis=-1)

        read = [(g.prompt, g.tokens, g.order) for g in evidence.reference[: self.n]]
        sums = kept(evidence.cache, "depth", (evidence.identity, self.depth, read), computed)
        found: dict[str, Values] = {}
        for j, (kl, top, cells) in enumerate(sums.swapaxes(0, 1), 1):
            found |= {f"kl@{j}": Ratios(kl, cells), f"top1@{j}": Ratios(top, cells)}
        return found


@torch.inference_mode()
def walk(
    base: Base, policy: Policy, part: Sequence[Trajectory], depth: int
) -> Float[np.ndarray, "3 depth B"]:
    """Sums over the masked cells of all states: KL in nats, same tokens on top, cells; by the number
    of commits since the base was asked, and by trajectory. `policy` is prepared."""
    sums = np.zeros((3, depth, len(part)))
    begun: deque[Turn] = deque(maxlen=depth)  # the last states' turns, the latest first
    for step, now in enumerate(turns(base, part, policy)):
        for turn in begun:
            write_recorded(turn, part, step - 1)
        rows, columns = now.canvas.masked.nonzero(as_tuple=True)
        for some in torch.arange(len(rows)).split(chunk_size(base.vocab_size, base.device)):
            here = (rows[some], columns[some])
            exact, owner = now.log_probs(*here), rows[some].cpu().numpy()
            for j, turn in enumerate(begun):
                drawn = turn.log_probs(*here)
                np.add.at(sums[0, j], owner, forward_kl(exact, drawn).double().cpu().numpy())
                np.add.at(sums[1, j], owner, same_top(exact, drawn).cpu().numpy())
                np.add.at(sums[2, j], owner, 1)
        begun.appendleft(now)
    return sums
