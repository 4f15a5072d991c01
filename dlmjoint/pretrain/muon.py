"""Muon where bfloat16 is slow."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim._muon import _adjust_lr


class Muon(torch.optim.Muon):
    """torch's, but on a CPU matrices are orthogonalised in float32 (float64, if they are). torch
    does it in bfloat16 everywhere, and a CPU without bfloat16 units takes twenty times as long for
    such products: over the code world's base, more than half of a whole training step."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. Raises what torch's does."""
        if any(p.device.type != "cpu" for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            found: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
            self._init_group(group, *found)
            for weight, grad, momentum in zip(*found, strict=True):
                _update(weight, grad, momentum, group)
        return loss


def _update(weight: Tensor, grad: Tensor, momentum: Tensor, group: dict[str, Any]) -> None:
    """One matrix: its momentum, orthogonalised, at the rate torch has for its shape."""
    momentum.lerp_(grad, 1 - group["momentum"])
    ahead = grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
    direction = orthogonal(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
    rate = _adjust_lr(group["lr"], group["adjust_lr_fn"], weight.shape)
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    weight.add_(direction, alpha=-rate)


def orthogonal(
    matrix: Float[Tensor, "R C"], coefficients: tuple[float, float, float], steps: int, eps: float
) -> Float[Tensor, "R C"]:
    """The matrix over its Frobenius norm, with singular values x put through
    a x + b x³ + c x⁵ so many times: near 1, all of them (K. Jordan, "Muon", 2024)."""
    linear, cubic, quintic = coefficients
    found = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    tall = found.shape[0] > found.shape[1]
    found = found.T if tall else found
    found = found / found.norm().clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.T
        found = linear * found + (cubic * gram + quintic * gram @ gram) @ found
    return (found.T if tall else found).to(matrix.dtype)
