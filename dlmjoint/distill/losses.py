"""How far a student's distribution is from the base's, cell by cell, in nats unless said otherwise.

Pure functions of log-probabilities, unreduced: whoever sums them also counts them. An id that is
impossible for both (-inf: a forbidden one) contributes nothing to value or gradient.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import log
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from dlmjoint.errors import ConfigError


class Divergence(ABC):
    """A loss per cell. A new one is a new class; YAML names it by its dotted path."""

    needs_tokens: ClassVar[bool] = False
    """Compares with the tokens the trajectory ends in, not with the base's distribution."""

    @abstractmethod
    def __call__(
        self,
        teacher: Float[Tensor, "C V"],
        student: Float[Tensor, "C V"],
        tokens: Int[Tensor, " C"] | None = None,
    ) -> Float[Tensor, " C"]:
        """The loss of every cell, from log-probabilities. The teacher's may be overwritten."""


@dataclass(frozen=True)
class ForwardKL(Divergence):
    """KL(teacher || student): covers everything the teacher may say (ADJUST Eq. 5)."""

    def __call__(
        self,
        teacher: Float[Tensor, "C V"],
        student: Float[Tensor, "C V"],
        tokens: Int[Tensor, " C"] | None = None,
    ) -> Float[Tensor, " C"]:
        """The KL of every cell."""
        return forward_kl(teacher, student, overwrite=not teacher.requires_grad)


@dataclass(frozen=True)
class RankedKL(ForwardKL):
    """The forward KL, and how far apart the two entropies are in their logarithms (ours).

    An order by entropy chooses among the most certain cells, whose entropies are 1e-4 or 1e-2 nats: a
    KL in nats hardly feels the difference, and decoding that must follow the base's order refuses
    drafts for nothing else (docs/decoding.md).
    """

    weight: float = 0.05
    """Of the smooth L1 distance of log(entropy + floor), nats."""
    floor: float = 1e-5
    """Below it one certain cell is as good as another, in nats."""

    def __post_init__(self) -> None:
        if self.weight < 0 or self.floor <= 0:
            raise ConfigError(
                f"weight is {self.weight} and floor {self.floor}: expected at least 0, and above 0"
            )

    def __call__(
        self,
        teacher: Float[Tensor, "C V"],
        student: Float[Tensor, "C V"],
        tokens: Int[Tensor, " C"] | None = None,
    ) -> Float[Tensor, " C"]:
        """The KL of every cell and the weighted distance."""
        certain, guess = (
            (_entropy(log_probs) + self.floor).log() for log_probs in (teacher, student)
        )
        distance = smooth_l1_loss(guess, certain, reduction="none")
        return super().__call__(teacher, student, tokens) + self.weight * distance


def _entropy(log_probs: Float[Tensor, "C V"]) -> Float[Tensor, " C"]:
    """In nats and at least 0; impossible ids contribute nothing. Unlike `decoding.order.entropy`, which
    works in place, it may be differentiated."""
    possible = log_probs.masked_fill(log_probs == -torch.inf, 0)
    return -(possible.exp() * possible).sum(-1).clamp(max=0)


@dataclass(frozen=True)
class ReverseKL(Divergence):
    """KL(student || teacher): stays where the teacher is likely (MiniLLM, arXiv 2306.08543).

    Infinite where the student allows what the teacher excludes: both have the same forbidden ids.
    """

    def __call__(
        self,
        teacher: Float[Tensor, "C V"],
        student: Float[Tensor, "C V"],
        tokens: Int[Tensor, " C"] | None = None,
    ) -> Float[Tensor, " C"]:
        """The KL of every cell, the other way round."""
        return forward_kl(student, teacher)


@dataclass(frozen=True)
class JensenShannon(Divergence):
    """The generalised Jensen-Shannon divergence of GKD (arXiv 2306.13649, Eq. 1):
    beta KL(teacher || m) + (1 - beta) KL(student || m) with m = beta teacher + (1 - beta) student.
    """

    beta: float = 0.5
    """Weight of the teacher; 0.5 is the symmetric divergence, at most log 2."""

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ConfigError(f"beta is {self.beta}, expected between 0 and 1: the ends are KLs")

    def __call__(
        self,
        teacher: Float[Tensor, "C V"],
        student: Float[Tensor, "C V"],
        tokens: Int[Tensor, " C"] | None = None,
    ) -> Float[Tensor, " C"]:
        """The divergence of every cell."""
        teacher, student = _finite(teacher, student), _finite(student, teacher)
        mixed = torch.logaddexp(teacher + log(self.beta), student + log(1 - self.beta))
        return self.beta * forward_kl(teacher, mixed) + (1 - self.beta) * forward_kl(student, mixed)


@dataclass(frozen=True)
class TotalVariation(Divergence):
    """Half the L1 distance of the probabilities, from 0 to 1: the share of draws that must differ."""

    def __call__(
        self,
        teacher: Float[Tensor, "C V"],
        student: Float[Tensor, "C V"],
        tokens: Int[Tensor, " C"] | None = None,
    ) -> Float[Tensor, " C"]:
        """The distance of every cell."""
        return (teacher.exp() - student.exp()).abs().sum(-1) / 2


@dataclass(frozen=True)
class CrossEntropy(Divergence):
    """-log student(token the trajectory ends in): an estimate of the forward KL, up to the teacher's
    entropy, from one draw of the teacher's joint. Noisier, but asks the base for nothing."""

    needs_tokens: ClassVar[bool] = True

    def __call__(
        self,
        teacher: Float[Tensor, "C V"],
        student: Float[Tensor, "C V"],
        tokens: Int[Tensor, " C"] | None = None,
    ) -> Float[Tensor, " C"]:
        """The surprise of every cell. Raises ValueError without tokens."""
        if tokens is None:
            raise ValueError("the cross-entropy needs the tokens that were written in the end")
        return -student.gather(-1, tokens[:, None]).squeeze(-1)


def forward_kl(
    teacher: Float[Tensor, "C V"], student: Float[Tensor, "C V"], *, overwrite: bool = False
) -> Float[Tensor, " C"]:
    """KL(teacher || student) in nats, differentiable in both. With `overwrite` the teacher's tensor,
    which then is not differentiated, holds something else afterwards: one tensor as wide as the
    vocabulary less."""
    return _ForwardKL.apply(teacher, student, overwrite)  # pyright: ignore[reportGeneralTypeIssues]


class _ForwardKL(torch.autograd.Function):
    """sum p (log p - log q). The gradient in log q is -p: nothing else has to be kept for it, where
    autograd would keep, and multiply, tensors as wide as the vocabulary."""

    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor, overwrite: bool) -> Tensor:
        """Per cell; what the teacher excludes counts nothing, whatever the student says of it."""
        excluded, probs = teacher == -torch.inf, teacher.exp()
        difference = teacher.sub_(student) if overwrite else teacher - student
        difference.masked_fill_(excluded, 0)
        moves = ctx.needs_input_grad[0]
        ctx.save_for_backward(probs, difference if moves else None)
        return (probs * difference if moves else difference.mul_(probs)).sum(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        """In the log-probabilities of both."""
        probs, difference = ctx.saved_tensors
        slope = probs * grads[0][:, None]
        return None if difference is None else slope * (difference + 1), slope.neg_(), None


def hidden_distance(
    target: Float[Tensor, "C D"], hidden: Float[Tensor, "C D"]
) -> Float[Tensor, " C"]:
    """Smooth L1 distance of hidden states, mean over D (ADJUST's regularisers)."""
    return smooth_l1_loss(hidden, target, reduction="none").mean(-1)


def same_top(teacher: Float[Tensor, "C V"], student: Float[Tensor, "C V"]) -> Int[Tensor, " C"]:
    """1 where both hold the same token for the most probable."""
    return (teacher.argmax(-1) == student.argmax(-1)).long()


def _finite(values: Float[Tensor, "C V"], where: Float[Tensor, "C V"]) -> Float[Tensor, "C V"]:
    """The values with 0 where the other's are impossible: 0 times -inf is not a number."""
    return values.masked_fill(where == -torch.inf, 0)
