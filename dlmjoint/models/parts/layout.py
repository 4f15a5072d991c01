"""What attention needs to know of a canvas beside its states: rotary tables and mask."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.masking_utils import create_bidirectional_mask

from dlmjoint.models.parts.attention import KERNELS, Attention, as_mask

Rotary = tuple[Float[Tensor, "B W E"], Float[Tensor, "B W E"]]
"""Cosines and sines of some columns."""


class View(NamedTuple):
    """What the queries of one forward are given."""

    mask: Any
    """Which keys each query may see, in the form the config's attention kernel takes; None where
    nothing is hidden and the kernel needs no mask (the fast path)."""
    rotary: Rotary


@dataclass(frozen=True)
class Layout:
    """Made once per canvas: nothing of it changes with the tokens that are written."""

    config: PreTrainedConfig
    attends: Bool[Tensor, "B L"]
    queries: Float[Tensor, "B L 1"]
    """Of the shape, the dtype and the device of the canvas's states."""
    rotary: Rotary
    """Of all columns."""
    blocks: Int[Tensor, "B L"] | None
    """The number of every column's block, where a column sees no later block; None: each sees all."""
    padded: bool
    """Whether there may be columns that nobody sees."""

    @classmethod
    def of(
        cls,
        config: PreTrainedConfig,
        attention: Attention,
        rotary: nn.Module,
        like: Tensor,
        positions: Int[Tensor, "B L"],
        attends: Bool[Tensor, "B L"],
        padded: bool | None = None,
        held: "Layout | None" = None,
    ) -> "Layout":
        """The layout of a canvas: the one that is held, if it is of this very canvas. States are of
        the device and the dtype of `like`. `padded` is the canvas's; None asks the device."""
        if held is not None and held.attends is attends and held.queries.dtype == like.dtype:
            return held
        # Made in decoding, it may be used in training: tensors of inference mode could not be.
        with torch.inference_mode(False), torch.no_grad():
            keys = like.new_zeros(1).expand(*attends.shape, 1)
            places = positions.clone()
            blocks = None if attention.block_length is None else attention.blocks(places)
            padded = not bool(attends.all()) if padded is None else padded
            return cls(config, attends, keys, rotary(keys, places), blocks, padded)

    @cached_property
    def all(self) -> View:
        """Of all columns as queries."""
        with torch.inference_mode(False), torch.no_grad():
            if self.blocks is not None:
                columns = torch.arange(self.attends.shape[1], device=self.attends.device)
                seen = self._seen(columns, len(columns))
                return View(as_mask(self.config, self.queries, seen), self.rotary)
            if not self.padded:
                return View(None, self.rotary)
            seen = self.attends.clone()
            if self.config._attn_implementation in KERNELS:  # transformers would ask the device
                seen = seen[:, None].expand(-1, seen.shape[1], -1)
                return View(as_mask(self.config, self.queries, seen), self.rotary)
            return View(create_bidirectional_mask(self.config, self.queries, seen), self.rotary)

    def at(self, columns: Int[Tensor, " W"], held: int) -> View:
        """Of some columns as queries; keys are the first so many, which are all of them unless no
        column sees a later block. A mask of all columns by all would be large in a long text."""
        cos, sin = self.rotary
        rotary = (cos[:, columns], sin[:, columns])
        if self.blocks is not None:
            return View(as_mask(self.config, self.queries, self._seen(columns, held)), rotary)
        mask = self.all.mask
        rows_of_queries = isinstance(mask, Tensor) and mask.ndim == 4
        return View(mask[:, :, columns] if rows_of_queries else mask, rotary)

    def side_by_side(
        self,
        columns: Int[Tensor, " W"],
        cells: Bool[Tensor, "R W"],
        rows: Int[Tensor, "B S"],
        held: int,
        shared: int,
    ) -> View:
        """Of some columns of S rows as the queries of one. Keys are the first `shared` columns, which
        the rows have in common, and behind them each row's own columns, of which `cells` take the
        place of those in common. Nothing sees another row's."""
        seen = self._seen(columns, held)
        computed = torch.zeros_like(seen[:, 0]).scatter(1, columns.expand_as(cells), cells)
        common = (seen & ~computed[:, None])[:, :, :shared][rows].flatten(1, 2)
        own = (seen[:, :, columns] & cells[:, None])[rows]
        count, width = rows.shape[1], len(columns)
        same = torch.eye(count, dtype=torch.bool, device=rows.device)[:, None, :, None]
        apart = (same & own[:, :, :, None]).reshape(len(rows), count * width, count * width)
        mask = as_mask(self.config, self.queries, torch.cat([common, apart], dim=-1))
        cos, sin = (table[:, columns][rows].flatten(1, 2) for table in self.rotary)
        return View(mask, (cos, sin))

    def _seen(self, columns: Int[Tensor, " W"], held: int) -> Bool[Tensor, "B W L"]:
        """Which of the first `held` columns some columns see. One in the padding sees what its row's
        first block does: it means nothing, but it is a number."""
        there = self.attends.clone()[:, None, :held]
        if self.blocks is None:
            return there.expand(-1, len(columns), -1)
        return (self.blocks[:, None, :held] <= self.blocks[:, columns, None]) & there
