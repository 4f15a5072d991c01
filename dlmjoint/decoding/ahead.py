"""What the host must know of a forward before it is made, read from the device in one go."""

from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlmjoint.decoding.looks.cells import Grid
from dlmjoint.decoding.policy import Policy
from dlmjoint.models.base import Base
from dlmjoint.models.parts.canvas_cache import CanvasMemory, Window
from dlmjoint.models.parts.cast import cast
from dlmjoint.types import Canvas


@dataclass(frozen=True)
class Ahead:
    """A forward as it is planned. Numbers are the host's, tensors the device's."""

    renew: Bool[Tensor, "B L"]
    """The cells whose predictions are renewed."""
    watched: Bool[Tensor, "B L"] | None
    """The cells an early rule reads."""
    within: Bool[Tensor, "B L"] | None
    """The cells the forward is about, where a base writes block after block; None: all of them."""
    candidates: Bool[Tensor, "B L"]
    """The cells of which the first look decides which are written."""
    quota: Int[Tensor, " B"]
    """Most tokens of each row."""
    block: Int[Tensor, " B"]
    """The block each row is in."""
    in_block: Int[Tensor, " B"]
    """Number of this forward among those about that block, from 0."""
    rows: tuple[int, ...]
    """The rows that are not finished."""
    tokens: int
    """Most tokens of any row."""
    seen: int
    """Most cells of any row in the first look."""
    open: tuple[int, ...]
    """open[d]: most cells of any row that may be written after d of this forward's tokens."""
    window: Window | None
    """The columns that are computed, where a memory must know."""
    last: bool
    """Whether the quota is all that is left of every row, and can be written."""

    @classmethod
    def of(
        cls,
        base: Base,
        canvas: Canvas,
        policy: Policy,
        memory: CanvasMemory | None,
        forward: int,
        before: "Ahead | None",
        renew: Bool[Tensor, "B L"] | None = None,
    ) -> "Ahead":
        """Forward number `forward` of a canvas; `before` is the one before it, of the same rows;
        `renew` says what it renews if that is known. One question to the device, whatever the policy."""
        masked = canvas.masked
        unfinished = masked.any(-1)
        grid = policy.grid(base)
        numbers = None if grid is None else grid.numbers(canvas)
        within = own_block(grid, canvas)
        watched = policy.early.reads(canvas)
        if within is not None:
            watched = None if watched is None else watched & within
        if renew is None:
            renew = renewed(canvas, policy, memory, forward, within)
        renew = renew & unfinished[:, None]
        ends = _block_ends(canvas, grid, numbers)
        writable = masked & renew
        first = writable
        if numbers is not None:
            first = writable & _reached(ends, numbers, torch.ones_like(ends[:, 0]))
        left, count = first.sum(-1), ends[:, -1]
        block = torch.zeros_like(count) if numbers is None else (ends == 0).sum(-1)
        in_block = torch.full_like(count, forward if numbers is None else 0)
        if before is not None and numbers is not None:
            in_block = torch.where(block == before.block, before.in_block + 1, 0)
        quota = policy.schedule.commits(forward, left, count, in_block)
        if within is not None:
            quota = quota.minimum(left)
        apart = not policy.refine.passes and not policy.schedule.adaptive
        candidates = writable & _reached(ends, numbers, quota) if apart else first
        seen = candidates if watched is None else candidates | watched
        stuck = (quota > 0) & ~candidates.any(-1)
        open_now = left if numbers is None else count - (masked & ~renew).sum(-1)
        more = quota.minimum(open_now) < count
        depths = 1 if apart or policy.schedule.adaptive else policy.schedule.most(masked.shape[1])
        told = [
            unfinished,
            torch.stack([stuck.any(), more.any(), quota.max(), seen.sum(-1).max()]),
            _open_after(ends, depths),
        ]
        if memory is not None:
            told.append(Window.bits(base.fed(renew)))
        sizes = [len(part) for part in told]
        numbers = iter(torch.cat([cast(part, torch.long) for part in told]).tolist())
        rows, (stuck_rows, not_last, tokens, most), opened, *window = (
            list(islice(numbers, size)) for size in sizes
        )
        if len(opened) < depths:  # where there are no blocks, one number tells all
            opened = [max(opened[0] - written, 0) for written in range(depths)]
        assert not stuck_rows, f"{policy} writes nothing in a forward"
        kept = tuple(row for row, going in enumerate(rows) if going)
        return cls(
            renew, watched, within, candidates, quota, block, in_block, kept, tokens, most,
            tuple(opened), Window.of_bits(*window) if window else None, not (not_last or policy.schedule.adaptive),
        )  # fmt: skip

    def stay(self, count: int, captured: bool) -> tuple[int, ...]:
        """The rows of `count` that stay in the batch: the unfinished ones. Where forwards are captured,
        finished ones fill it up to a power of two, so that shapes come again."""
        if not captured:
            return self.rows
        size = min(count, 1 << (len(self.rows) - 1).bit_length())
        going = set(self.rows)
        finished = [row for row in range(count) if row not in going]
        return (*self.rows, *finished[: size - len(self.rows)])

    def take(self, rows: Int[Tensor, " R"]) -> "Ahead":
        """The same of some rows."""
        watched = None if self.watched is None else self.watched[rows]
        return replace(
            self,
            renew=self.renew[rows],
            watched=watched,
            within=None if self.within is None else self.within[rows],
            candidates=self.candidates[rows],
            quota=self.quota[rows],
            block=self.block[rows],
            in_block=self.in_block[rows],
        )


def own_block(grid: Grid | None, canvas: Canvas) -> Bool[Tensor, "B L"] | None:
    """The cells a forward is about, in a base that writes block after block; None: all."""
    return grid.first(canvas) if grid is not None and grid.own else None


def renewed(
    canvas: Canvas,
    policy: Policy,
    memory: CanvasMemory | None,
    forward: int | Int[Tensor, " B"],
    within: Bool[Tensor, "B L"] | None,
) -> Bool[Tensor, "B L"]:
    """The cells whose predictions a forward renews: what the cache says, and what an early rule reads."""
    renew, watch = policy.cache.renew(canvas, memory, forward), policy.early.watch(canvas)
    if watch is None:
        return renew
    return renew | (watch if within is None else watch & within)


def _block_ends(
    canvas: Canvas, grid: Grid | None, numbers: Int[Tensor, "B L"] | None
) -> Int[Tensor, "B n"]:
    """How many masks stand in each row's blocks up to and with each block."""
    if grid is None or numbers is None:
        return canvas.masked.sum(-1, keepdim=True)
    counts = numbers.new_zeros(len(numbers), grid.most(canvas))
    return counts.scatter_add(1, numbers, canvas.masked.long()).cumsum(-1)


def _reached(
    ends: Int[Tensor, "B n"], numbers: Int[Tensor, "B L"] | None, tokens: Int[Tensor, " B"]
) -> Bool[Tensor, "B L"]:
    """The columns of the blocks that a row gets to with so many tokens."""
    if numbers is None:
        return tokens[:, None] > 0
    before = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    return (before < tokens[:, None]).gather(1, numbers)


def _open_after(ends: Int[Tensor, "B n"], depths: int) -> Int[Tensor, " d"]:
    """Most masks that any row has left in the block it is in after 0, 1, ... tokens; where there is but
    one block, after none."""
    if ends.shape[1] == 1:
        return ends.amax(0)
    written = torch.arange(depths, device=ends.device).expand(len(ends), -1).contiguous()
    block = torch.searchsorted(ends, written, right=True).clamp(max=ends.shape[1] - 1)
    return (ends.gather(1, block) - written).amax(0)
