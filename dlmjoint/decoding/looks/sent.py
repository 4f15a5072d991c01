"""Constants on a device: sent there once, not in every forward."""

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=1024)
def sent(values: tuple[int | float, ...], device: torch.device) -> Tensor:
    """The values as a tensor, int64 or float64. It is shared: not to be written to."""
    exact = torch.float64 if any(isinstance(value, float) for value in values) else torch.long
    with torch.inference_mode(False):  # training uses them too
        return torch.tensor(values, dtype=exact, device=device)


@lru_cache(maxsize=8)
def least(device: torch.device) -> Tensor:
    """Minus infinity, in whatever type it meets."""
    with torch.inference_mode(False):
        return torch.full((), -torch.inf, device=device)
