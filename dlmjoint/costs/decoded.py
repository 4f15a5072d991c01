"""What a decoder's generations cost: counted, timed, and by arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlmjoint.costs.arithmetic import Size, forward_flops, pass_flops
from dlmjoint.costs.memory import block_bytes
from dlmjoint.evaluation.records import Generation
from dlmjoint.models.files import torch_dtype

PERCENTILES = (50, 90, 99)
"""Of the seconds until an answer was there."""


@dataclass(frozen=True)
class Machine:
    """What a run's arithmetic is about: its base, as it was loaded."""

    size: Size
    element: int
    """Bytes of a weight that is not quantised."""
    bits: int | None
    """Per weight, where the base's blocks are quantised."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Machine | None":
        """From a run's settings; None for a base whose costs arithmetic does not know."""
        if settings.get("size") is None:
            return None
        base = settings["base"]
        element = torch_dtype(base["dtype"]).itemsize
        return cls(Size(**settings["size"]), element, base.get("bits"))

    def flops(self, line: Generation) -> float:
        """Of one example: the matrix products of base and sampler, see `dlmjoint.costs.arithmetic`."""
        length = len(line.prompt) + len(line.tokens)
        base = forward_flops(self.size, line.columns, length, line.cells)
        width = self.size.block_length or length
        return base + pass_flops(self.size, line.sampler_passes * width, length, 0)

    def bytes_read(self, line: Generation) -> float:
        """Weights read from memory for one example were it decoded alone: a forward reads the
        base's blocks and head, a pass the layer and the head. Rows of a batch share this."""
        head = self.size.head * self.element
        forward = block_bytes(self.size, self.element, self.bits) + head
        passed = self.size.layer_matrices * self.element + head
        return line.base_forwards * forward + line.sampler_passes * passed


def cost(lines: list[Generation], machine: Machine | None) -> dict[str, float | int]:
    """Totals over lines and their ratios; sums over rows, so independent of batching.

    Times, and `latency_p50` and so on, are this machine's at this batch size: an answer is there
    when its batch is done, so latency is the batch's wall time, in seconds, and `rows_per_batch` says
    how many answers were waited for together (1: a single request's latency). `flops` and `bytes`
    are arithmetic, totals over examples; they are absent where a part has no arithmetic: a base that
    is no transformer, or a guide beside it.
    """
    forwards = sum(line.base_forwards for line in lines)
    tokens = sum(writer != "end" for line in lines for writer in line.writers)
    text_tokens = sum(line.text_tokens for line in lines)
    seconds = sum(line.seconds for line in lines)
    guided = sum(line.guide_passes for line in lines)
    return {
        "examples": len(lines),
        "base_forwards": forwards,
        "canvases": (canvases := sum(line.canvases for line in lines)),
        "canvases_per_forward": canvases / forwards,
        "sampler_passes": sum(line.sampler_passes for line in lines),
        "guide_passes": guided,
        "columns": sum(line.columns for line in lines),
        "tokens": tokens,
        "text_tokens": text_tokens,
        "tokens_per_forward": tokens / forwards,
        "tokens_per_second": tokens / seconds,
        "text_tokens_per_second": text_tokens / seconds,
        "seconds": seconds,
        **_latency(lines),
        "peak_bytes": max(line.peak_bytes for line in lines),
        **({} if guided or machine is None else _arithmetic(lines, machine)),
    }


def _latency(lines: list[Generation]) -> dict[str, float]:
    waited = np.percentile([line.latency for line in lines], PERCENTILES)
    found = {f"latency_p{p}": float(w) for p, w in zip(PERCENTILES, waited, strict=True)}
    return found | {"rows_per_batch": sum(line.rows for line in lines) / len(lines)}


def _arithmetic(lines: list[Generation], machine: Machine) -> dict[str, float]:
    return {
        "flops": sum(machine.flops(line) for line in lines),
        "bytes": sum(machine.bytes_read(line) for line in lines),
    }
