"""How many rows are decoded together: as many as fit, of about the same length."""

import logging
import sys
from dataclasses import dataclass
from typing import Literal

import psutil
import torch

from dlmjoint.decoding.draw import CHUNK
from dlmjoint.errors import ConfigError
from dlmjoint.models.transformer import TransformerBase

log = logging.getLogger(__name__)

ENOUGH = {"cpu": 1 << 11, "cuda": 1 << 14}
"""Columns per forward beyond which a larger batch is no faster: it only outgrows the processor's
caches, or keeps a GPU busy that was busy already. (A product of matrices fills an H100 from a few
hundred columns on; more of them spread the cost of starting each kernel.)"""
SHARE = 0.8
"""Of the free memory that is used; the rest is for what an allocator cannot use."""


@dataclass
class Batching:
    """Limits of a batch, which shrink when one of that size did not fit."""

    most_rows: int = sys.maxsize
    """Rows of a batch."""
    most_columns: int = sys.maxsize
    """Columns of a batch: rows times their common width, padding included."""

    @classmethod
    def of(cls, base: TransformerBase, batch_size: int | Literal["auto"], width: int) -> "Batching":
        """The limits asked for, or those of the base's device; `width` is the widest canvas's.

        Raises ConfigError if not even one row of that width fits.
        """
        if isinstance(batch_size, int):
            return cls(most_rows=batch_size)
        fitting = columns_that_fit(base, free_bytes(base.device))
        if fitting < width:
            raise ConfigError(
                f"a canvas of {width} columns does not fit beside {base.name} on {base.device}: "
                f"there is memory for {fitting}. Shorten prompts or max_new_tokens, or load the base "
                "in fewer bits (loading)"
            )
        enough = ENOUGH["cpu" if base.device.type == "cpu" else "cuda"]
        log.info("memory for %d columns per forward, %d of them of use", fitting, enough)
        return cls(most_columns=max(width, min(fitting, enough)))

    def rows(self, waiting: int, width: int) -> int:
        """How many of the waiting rows go next, the widest of them having this width: parts as equal
        as the limits allow, so that no batch is left with a few."""
        most = min(waiting, self.most_rows, max(1, self.most_columns // width))
        return -(-waiting // -(-waiting // most))

    def halve(self, rows: int, width: int) -> None:
        """From now on at most half of a batch that was too large.

        Raises ConfigError if that was a single row.
        """
        if rows == 1:
            raise ConfigError(
                f"the device has not the memory for one row of {width} columns: shorten prompts or "
                "max_new_tokens, or load the base in fewer bits (loading)"
            )
        self.most_columns = rows // 2 * width
        log.warning("%d rows of %d columns were too many, going on with half", rows, width)


def free_bytes(device: torch.device) -> int:
    """What this process may still allocate there."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return psutil.virtual_memory().available


def columns_that_fit(base: TransformerBase, free: int) -> int:
    """Columns per forward for which so many bytes are enough, logits included."""
    config = base.config
    each = forward_bytes(config.hidden_size, config.intermediate_size, 1, base.dtype.itemsize)
    return max(0, int(SHARE * free - drawing_bytes(base.vocab_size))) // each


def forward_bytes(width: int, inner: int, columns: int, element: int) -> int:
    """Alive together inside one block of a forward without gradients: three tensors of the
    feed-forward's inner width and four of the model's, per column. Not what an attention kernel
    needs for itself, which is little but for the eager one's."""
    return columns * (3 * inner + 4 * width) * element


def drawing_bytes(vocabulary: int, cells: int = sys.maxsize) -> int:
    """Logits of one part of so many cells, in every copy that ranking and drawing make of them: 24
    bytes each with top-p, which sorts, or noise, which is hashed in 64 bits; 10 where the most
    probable token is taken."""
    return 24 * vocabulary * min(cells, max(1, CHUNK // vocabulary))
