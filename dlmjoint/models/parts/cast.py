"""Changes of type that are none where there is nothing to change."""

import torch
from torch import Tensor


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in a dtype. Where it is in it already nothing is dispatched: in inference mode `to`
    is, a hundred times per forward."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
