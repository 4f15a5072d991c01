"""What the host must know of a forward before it is made, read from the device in one go."""

from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlmjoint.decoding.policy import Policy
from dlmjoint.models.base import Base
from dlmjoint.models.canvas_cache import CanvasMemory, Window
from dlmjoint.types import Canvas


@dataclass(frozen=True)
class Ahead:
    """A forward as it is planned. Numbers are the host's, tensors the device's."""

    renew: Bool[Tensor, "B L"]
    """The cells whose predictions are renewed."""
    watched: Bool[Tensor, "B L"] | None
    """The cells an early rule reads."""
    candidates: Bool[Tensor, "B L"]
    """The cells of which the first look decides which are written."""
    quota: Int[Tensor, " B"]
    """Most tokens of each row."""
    rows: tuple[int, ...]
    """The rows that are not finished."""
    tokens: int
    """Most tokens of any row."""
    seen: int
    """Most cells of any row in the first look."""
    open: tuple[int, ...]
    """open[d]: most cells of any row that may be written after d of this forward's tokens."""
    window: Window
    """The columns that are computed."""

    @classmethod
    def of(
        cls, base: Base, canvas: Canvas, policy: Policy, memory: CanvasMemory | None, forward: int
    ) -> "Ahead":
        """Forward number `forward` of a canvas. One question to the device, whatever the policy."""
        masked = canvas.masked
        unfinished = masked.any(-1)
        renew = policy.cache.renew(canvas, memory, forward) | policy.early.watch(canvas)
        renew = renew & unfinished[:, None]
        watched = policy.early.reads(canvas)
        ends = _block_ends(canvas, policy.blocks)
        writable = masked & renew
        first = _reached(canvas, ends, policy.blocks, torch.ones_like(ends[:, 0]))
        quota = policy.schedule.commits(forward, (writable & first).sum(-1), masked.sum(-1))
        apart = not policy.refine.passes and not policy.schedule.adaptive
        candidates = writable & (_reached(canvas, ends, policy.blocks, quota) if apart else first)
        seen = candidates if watched is None else candidates | watched
        stuck = (quota > 0) & ~candidates.any(-1)
        depths = 1 if apart or policy.schedule.adaptive else policy.schedule.most(masked.shape[1])
        told = [
            unfinished,
            torch.stack([stuck.any(), quota.max(), seen.sum(-1).max()]),
            _open_after(ends, depths),
            Window.bits(base.fed(renew)),
        ]
        sizes = [len(part) for part in told]
        numbers = iter(torch.cat([part.long() for part in told]).tolist())
        rows, (stuck_rows, tokens, most), opened, window = (
            list(islice(numbers, size)) for size in sizes
        )
        assert not stuck_rows, f"{policy} writes nothing in a forward"
        kept = tuple(row for row, going in enumerate(rows) if going)
        return cls(
            renew, watched, candidates, quota, kept, tokens, most, tuple(opened),
            Window.of_bits(window),
        )  # fmt: skip

    def take(self, rows: Int[Tensor, " R"]) -> "Ahead":
        """The same of some rows."""
        watched = None if self.watched is None else self.watched[rows]
        return replace(
            self,
            renew=self.renew[rows],
            watched=watched,
            candidates=self.candidates[rows],
            quota=self.quota[rows],
        )


def _block_ends(canvas: Canvas, block_length: int | None) -> Int[Tensor, "B n"]:
    """How many masks stand in each row's blocks up to and with each block."""
    masked = canvas.masked[:, canvas.response]
    if block_length is None:
        return masked.sum(-1, keepdim=True)
    padded = torch.nn.functional.pad(masked, (0, -masked.shape[1] % block_length))
    return padded.unflatten(-1, (-1, block_length)).sum(-1).cumsum(-1)


def _reached(
    canvas: Canvas, ends: Int[Tensor, "B n"], block_length: int | None, tokens: Int[Tensor, " B"]
) -> Bool[Tensor, "B L"]:
    """The response columns of the blocks that a row gets to with so many tokens."""
    if block_length is None:
        return torch.ones_like(canvas.attends)
    before = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    reached = before < tokens[:, None]
    length = canvas.response.stop - canvas.response.start
    inside = reached.repeat_interleave(
        block_length, dim=1, output_size=ends.shape[1] * block_length
    )
    around = (canvas.response.start, canvas.tokens.shape[1] - canvas.response.stop)
    return torch.nn.functional.pad(inside[:, :length], around)


def _open_after(ends: Int[Tensor, "B n"], depths: int) -> Int[Tensor, " d"]:
    """Most masks that any row has left in the block it is in after 0, 1, ... tokens."""
    written = torch.arange(depths, device=ends.device).expand(len(ends), -1).contiguous()
    block = torch.searchsorted(ends, written, right=True).clamp(max=ends.shape[1] - 1)
    return (ends.gather(1, block) - written).amax(0)
