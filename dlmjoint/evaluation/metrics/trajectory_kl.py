"""How far a decoder's joint is from the base's exact joint, in nats."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early import Never
from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.looks.sent import sent
from dlmjoint.decoding.order import Order
from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.kept import kept
from dlmjoint.evaluation.metrics.base import Evidence, ExampleMetric
from dlmjoint.evaluation.metrics.values import Ratios, Values
from dlmjoint.evaluation.records import Generation
from dlmjoint.models.base import Base
from dlmjoint.random import Noise
from dlmjoint.trajectories.record import record


@dataclass(frozen=True)
class TrajectoryKL(ExampleMetric):
    """`trajectory_kl`: KL(exact joint || decoder), nats per committed token, over tokens given the
    exact order.

    Along each exact trajectory, in its own order and with its own tokens, the decoder's loop is
    run and log p_exact - log q_decoder summed over commits; the mean over exact trajectories is an
    unbiased estimate, 0 for one token per forward, and slightly negative at worst by chance.
    How the decoder itself would choose columns is not part of it. The interval is a bootstrap over
    trajectories.
    """

    needs_reference: ClassVar[bool] = True
    keeps_examples: ClassVar[bool] = True

    n: int = 500
    """Trajectories followed, at most; each costs response / K base forwards."""
    batch_size: int = 64
    """Trajectories followed together."""

    def check(self, n: int, decoders: Mapping[str, Policy], exact: Policy) -> None:
        """Raise ConfigError for decoders whose token probabilities do not compare."""
        if exact.draw.temperature == 0 or exact.draw.top_p < 1:
            raise ConfigError(
                "trajectory_kl compares distributions: the task's draw needs a temperature above 0 "
                "and top_p 1, or the metric must be left out"
            )
        for name, policy in decoders.items():
            if _comparable(policy.draw) != _comparable(exact.draw):
                raise ConfigError(
                    f"trajectory_kl: decoder {name} draws with {policy.draw}, the exact samples "
                    f"with {exact.draw}: set the task's draw, which holds for both"
                )
            if not isinstance(policy.early, Never):
                raise ConfigError(
                    f"trajectory_kl: decoder {name} finishes rows early with the most probable "
                    "tokens, which has no token probabilities; leave the metric out"
                )

    def examples(self, evidence: Evidence) -> dict[str, Values]:
        """See the class. Reads the sums from the cache if they were computed before."""
        chosen = evidence.reference[: self.n]

        def computed() -> Float[np.ndarray, " n"]:
            base, policy = evidence.replay()
            starts = range(0, len(chosen), self.batch_size)
            batches = [chosen[start : start + self.batch_size] for start in starts]
            return np.concatenate([excess_nats(base, policy, batch) for batch in batches])

        of = (evidence.identity, [(g.prompt, g.tokens, g.order) for g in chosen])
        sums = kept(evidence.cache, "trajectory-kl", of, computed)
        counts = np.array([len(generation.order) for generation in chosen], dtype=float)
        return {"trajectory_kl": Ratios(sums, counts)}


def excess_nats(base: Base, policy: Policy, exact: list[Generation]) -> Float[np.ndarray, " n"]:
    """log p_exact - log q_decoder of each trajectory, summed over its commits.

    Raises ConfigError if the policy's windows or blocks do not let it follow the exact order.
    """
    order = torch.tensor([generation.order for generation in exact])
    tokens = torch.tensor([generation.tokens for generation in exact])
    place = torch.zeros_like(tokens)
    place.scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
    forced = replace(
        policy,
        order=ForcedOrder(place.to(base.device)),
        draw=ForcedDraw(inner=policy.draw, tokens=tokens.to(base.device)),
    )
    canvas = base.canvas([generation.prompt for generation in exact], tokens.shape[1])
    fixed = torch.ones_like(tokens, dtype=torch.bool).scatter(1, order, False)
    canvas.tokens[:, canvas.response][fixed] = tokens[fixed].to(base.device)  # anchors
    ids = tuple(range(len(exact)))
    followed = record(canvas, decode(base, canvas, forced, Noise(0, ids)), ids)
    if not torch.equal(torch.stack([trajectory.order for trajectory in followed]), order):
        raise ConfigError(
            "trajectory_kl: the decoder's cache or blocks forbid the exact samples' order; "
            "give the task's `exact` policy the same block_length, or leave the metric out"
        )
    log_q = np.array([trajectory.log_probs.sum().item() for trajectory in followed])
    return np.array([sum(generation.log_probs) for generation in exact]) - log_q


@dataclass(frozen=True, eq=False)
class ForcedOrder(Order):
    """The columns in a given order."""

    place: Int[Tensor, "B N"]
    """place[i, c]: when example i writes column c."""

    def rank(self, cells: Cells, noise: Noise) -> Tensor:
        """Earlier is higher."""
        return -self.place[_examples(cells.rows_of_all, noise), cells.places].double()


@dataclass(frozen=True, eq=False)
class ForcedDraw(Draw):
    """Given tokens, with the log-probabilities another draw gives them."""

    inner: Draw = field(kw_only=True)
    tokens: Int[Tensor, "B N"] = field(kw_only=True)

    def log_probs(self, logits: Float[Tensor, "*cells V"]) -> Float[Tensor, "*cells V"]:
        """The inner draw's."""
        return self.inner.log_probs(logits)

    def shape(self, logits: Float[Tensor, "*cells V"]) -> Float[Tensor, "*cells V"]:
        """The inner draw's."""
        return self.inner.shape(logits)

    def write(
        self,
        logits: Tensor,
        rows: Tensor,
        columns: Tensor,
        noise: Noise,
        captured: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The given tokens; nothing is drawn, so there is nothing to compile."""
        tokens = self.tokens[_examples(rows, noise), columns]
        return tokens, logits.double().log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)


def _examples(rows: Int[Tensor, "*cells"], noise: Noise) -> Int[Tensor, "*cells"]:
    """Which followed trajectory each row is: finished rows leave the batch, so row numbers move."""
    return sent(noise.example_ids, rows.device)[rows]


def _comparable(draw: Draw) -> tuple[float, float, frozenset[int | str]]:
    return draw.temperature, draw.top_p, frozenset(draw.forbid)
