"""Constants on a device: sent there once, not in every forward."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


def sent(values: tuple[int | float, ...], device: torch.device) -> Tensor:
    """The values as a tensor, int64 or float64. It is shared: not to be written to."""
    exact = torch.float64 if any(isinstance(value, float) for value in values) else torch.long
    return _sent(values, exact, device)


@lru_cache(maxsize=1024)
def _sent(values: tuple[int | float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # The type is a part of the key: (0, 1) and (0.0, 1.0) are equal.
    with torch.inference_mode(False):  # training uses them too
        return torch.tensor(values, dtype=dtype, device=device)


@lru_cache(maxsize=8)
def least(device: torch.device) -> Tensor:
    """Minus infinity, in whatever type it meets."""
    with torch.inference_mode(False):
        return torch.full((), -torch.inf, device=device)


@lru_cache(maxsize=8)
def standard(device: torch.device) -> tuple[Float[Tensor, "1 1"], Float[Tensor, "1 1"]]:
    """Mean 0 and deviation 1, float32."""
    with torch.inference_mode(False):
        return torch.zeros(1, 1, device=device), torch.ones(1, 1, device=device)
