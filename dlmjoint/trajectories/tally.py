"""What a decoding cost."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from dlmjoint.clock import Stopwatch
from dlmjoint.types import Step


@dataclass
class Tally:
    """Running totals over steps; every count is a sum over rows, so it does not depend on batching."""

    base_forwards: int = 0
    """Forwards a row was in while unfinished."""
    sampler_passes: int = 0
    """Sampler passes a row was in while unfinished."""
    guide_passes: int = 0
    """Forwards of a guiding model a row was in while unfinished."""
    columns: int = 0
    """Canvas columns renewed for the rows that needed them, padding not counted."""
    canvases: int = 0
    """Canvases the base's forwards were about: one each, but K where K drafts are verified at once."""
    tokens: int = 0
    """Tokens committed, end-of-text included."""
    text_tokens: int = 0
    """Tokens committed, end-of-text excluded."""
    seconds: float = 0.0
    """Wall time inside `timed`, device synchronised, compiling left out."""
    peak_bytes: int = 0
    """Most device memory allocated; 0 on a CPU, which does not say."""
    eos_id: int = field(default=-1, repr=False)

    def timed(self, steps: Iterable[Step], device: torch.device) -> Iterator[Step]:
        """Pass steps through, counting each and timing all of it."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        watch, sums = Stopwatch(device), None
        for step in steps:
            # Summed where it is: to ask for numbers here would be to wait for each forward.
            sums = self._sums(step) if sums is None else sums + self._sums(step)
            yield step
        self.seconds += watch.seconds
        if sums is not None:
            self._add(sums)
        if device.type == "cuda":
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated(device))

    def add(self, step: Step) -> None:
        """Count one step."""
        self._add(self._sums(step))

    def _sums(self, step: Step) -> Int[Tensor, " n"]:
        text = [
            commit.written & (commit.tokens != self.eos_id)
            for commit in step.commits
            if commit.writer != "end"
        ]
        costs = [step.forwards, step.passes, step.guide_passes, step.columns]
        costs += [step.canvases, step.written]
        counts = [cost.sum() for cost in costs] + [
            sum((t.sum() for t in text), costs[0].new_zeros(()))
        ]
        return torch.stack(counts)

    def _add(self, sums: Int[Tensor, " n"]) -> None:
        for name, value in zip(_COUNTED, sums.tolist(), strict=True):
            setattr(self, name, getattr(self, name) + value)


_COUNTED = (
    *("base_forwards", "sampler_passes", "guide_passes", "columns", "canvases"),
    *("tokens", "text_tokens"),
)
"""Fields in the order in which they are summed."""
