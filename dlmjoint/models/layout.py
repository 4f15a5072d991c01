"""What attention needs to know of a canvas beside its states: rotary tables and mask."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.masking_utils import create_bidirectional_mask


@dataclass(frozen=True)
class Layout:
    """Made once per canvas: neither changes with the tokens that are written."""

    attends: Bool[Tensor, "B L"]
    dtype: torch.dtype
    rotary: tuple[Float[Tensor, "B L E"], Float[Tensor, "B L E"]]
    """Cosines and sines of all columns."""
    mask: Any
    """Which keys each column may see, in the form the config's attention kernel takes; None where
    nothing is padded and the kernel needs no mask (the fast path)."""

    @classmethod
    def of(
        cls,
        config: PreTrainedConfig,
        rotary: nn.Module,
        queries: Float[Tensor, "B W D"],
        positions: Int[Tensor, "B L"],
        attends: Bool[Tensor, "B L"],
        held: "Layout | None" = None,
    ) -> "Layout":
        """The layout of a canvas: the one that is held, if it is of this very canvas. `queries` give
        device and dtype."""
        if held is not None and held.attends is attends and held.dtype == queries.dtype:
            return held
        # Made in decoding, it may be used in training: tensors of inference mode could not be.
        with torch.inference_mode(False), torch.no_grad():
            keys = queries.new_zeros(1).expand(
                *attends.shape, 1
            )  # only its shape and dtype are read
            mask = create_bidirectional_mask(config, keys, attends.clone())
            return cls(attends, queries.dtype, rotary(keys, positions.clone()), mask)

    def at(self, columns: Int[Tensor, " W"]) -> "Layout":
        """The layout of some columns as queries; keys stay all of them."""
        cos, sin = self.rotary
        rows_of_queries = isinstance(self.mask, Tensor) and self.mask.ndim == 4
        mask = self.mask[:, :, columns] if rows_of_queries else self.mask
        return Layout(self.attends, self.dtype, (cos[:, columns], sin[:, columns]), mask)
