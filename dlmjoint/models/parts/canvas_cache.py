"""The last computed state of every canvas cell, written by absolute position."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from dlmjoint.models.parts.layout import Layout, View

GROWTH = 256
"""Columns by which a growing memory grows at least."""


@dataclass(frozen=True)
class Window:
    """What the host must know of the cells a forward computes: the shapes, not the cells."""

    columns: tuple[bool, ...]
    """Whether any row has a column computed."""
    uniform: bool
    """Whether all rows have the same columns computed."""

    @staticmethod
    def bits(cells: Bool[Tensor, "B L"]) -> Bool[Tensor, " L+1"]:
        """A window on the device."""
        some = cells.any(0)
        return torch.cat([some, (some == cells.all(0)).all()[None]])

    @classmethod
    def of_bits(cls, bits: list[int]) -> "Window":
        """The same on the host."""
        return cls(tuple(map(bool, bits[:-1])), bool(bits[-1]))


class Prefix(Cache):
    """Keys and values of one layer that stand before those of a forward; nothing is kept of it."""

    def __init__(
        self,
        keys: Float[Tensor, "B H R E"] | None,
        values: Float[Tensor, "B H R E"] | None,
        seen: Bool[Tensor, "B P"],
    ) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        # There may be room for more than is there.
        self.keys = None if keys is None else keys[:, :, : seen.shape[1]]
        self.values = None if values is None else values[:, :, : seen.shape[1]]
        self.seen = seen
        """Which of them there are to be seen: in every row those before its block."""

    def take(self, rows: Int[Tensor, " R"]) -> "Prefix":
        """The same of some rows."""
        if self.keys is None or self.values is None:
            return Prefix(None, None, self.seen[rows])
        return Prefix(self.keys[rows], self.values[rows], self.seen[rows])

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """All keys and values: the prefix's, then the forward's."""
        if self.keys is None or self.values is None:
            return key_states, value_states
        return (
            torch.cat([self.keys, key_states], dim=2),
            torch.cat([self.values, value_states], dim=2),
        )


class CanvasMemory(Cache):
    """Keys, values and last hidden states of a whole canvas.

    transformers' own caches append; a canvas is rewritten in the middle. `update` therefore writes
    the cells of the forward in progress where they belong and returns all columns, so that they
    attend to everything else as it was last computed. Keys are stored rotated: positions never
    move. Cells are renewed row by row, so a row that is ahead of the others keeps what it froze.

    A `growing` memory holds the columns up to the last one computed so far: what lies behind it is
    not there to be attended to. That is exact where no column sees a later block than its own.
    """

    def __init__(self, growing: bool = False) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.growing = growing
        self.beside: CanvasMemory | None = None
        """What a joint sampler remembers of the same columns."""
        self.keys: dict[int, Float[Tensor, "B H L E"]] = {}
        self.values: dict[int, Float[Tensor, "B H L E"]] = {}
        self.hidden: Float[Tensor, "B L D"] | None = None
        self.clean: Bool[Tensor, "B L"] | None = None
        """False where a cell was still a mask when it was last computed, or, in a base that writes block
        after block, where its block was not finished."""
        self.columns: Int[Tensor, " W"] = torch.empty(0, dtype=torch.long)
        """The columns of the forward in progress, ascending."""
        self._cells: Bool[Tensor, "B W"] | None = None
        """Which of their cells change; None: all."""
        self._length = 0
        self.held = 0
        """Columns that may be attended to: all of the canvas, or as many as a growing memory holds."""
        self._computed = 0
        self._expected: Window | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was computed yet."""
        return self.clean is None

    def keep(self, rows: Int[Tensor, " R"], count: int) -> None:
        """Forget all other rows of `count`, because they are finished. A memory of two rows per canvas
        row (classifier-free guidance) forgets both."""
        if self.beside is not None:
            self.beside.keep(rows, count)
        stored = [*self.keys.values()] if self.hidden is None else [self.hidden]
        if not stored:
            return
        rows = _in_all(rows, count, len(stored[0]) // count)
        self._cells = None if self._cells is None else self._cells[rows]
        if self.hidden is not None and self.clean is not None:
            self.hidden, self.clean = self.hidden[rows], self.clean[rows]
        for held in (self.keys, self.values):
            for layer, states in held.items():
                held[layer] = states[rows.to(states.device)]

    def expect(self, window: Window) -> None:
        """Tell the memory beforehand what the next forward computes: it then need not ask the device."""
        self._expected = window

    def begin(self, renew: Bool[Tensor, "B L"]) -> None:
        """Announce the cells the next forward recomputes; the first forward must compute all, unless
        the memory grows."""
        window, self._expected = self._expected, None
        if window is None:
            window = Window.of_bits(Window.bits(renew).tolist())
        if self.empty and not self.growing and not (window.uniform and all(window.columns)):
            raise ValueError("the first forward must compute every cell of the canvas")
        some = renew.any(0).byte()
        self.columns = some.sort(descending=True, stable=True).indices[: sum(window.columns)]
        self._cells = None if window.uniform else renew[:, self.columns]
        self._length = renew.shape[1]
        self.held = self._length
        if self.growing:
            last = max(column for column, some in enumerate(window.columns) if some)
            self._computed = max(self._computed, last + 1)
            self.held = self._computed

    def follow(self, other: "CanvasMemory", rows: int) -> None:
        """Announce the cells that another memory's last forward computed, of its first rows."""
        self.columns, self._length = other.columns, other._length
        self._cells = None if other._cells is None else other._cells[:rows]
        self.held = self._computed = other.held

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """All keys and values of layer `layer_idx`, with the announced cells renewed."""
        for held, new in ((self.keys, key_states), (self.values, value_states)):
            if self.whole:
                held[layer_idx] = new
                continue
            held[layer_idx] = self._room(held.get(layer_idx), new, axis=2)
            self._write(held[layer_idx].transpose(1, 2), new.transpose(1, 2))
        return self.keys[layer_idx][:, :, : self.held], self.values[layer_idx][:, :, : self.held]

    def _room(self, held: Tensor | None, new: Tensor, axis: int) -> Tensor:
        """What is held, with room for all columns that may be attended to; in a growing memory it is
        made a good deal at a time, since making it copies everything."""
        before = 0 if held is None else held.shape[axis]
        if held is not None and before >= self.held:
            return held
        columns = min(self._length, max(self.held, before + GROWTH))
        shape = list(new.shape)
        shape[axis] = columns - before
        more = new.new_zeros(shape)
        return more if held is None else torch.cat([held, more], dim=axis)

    def store(self, hidden: Float[Tensor, "B W D"], unsettled: Bool[Tensor, "B L"]) -> None:
        """Keep the forward's hidden states, and which cells will never be computed otherwise again
        (in a bidirectional base: were already tokens)."""
        if self.whole:
            self.hidden, self.clean = hidden, ~unsettled
            return
        # The old hidden states live on in the last prediction: they are not written over.
        old = None if self.hidden is None else self.hidden.clone()
        self.hidden = self._room(old, hidden, axis=1)
        self.clean = torch.zeros_like(unsettled) if self.clean is None else self.clean.clone()
        self._write(self.hidden, hidden)
        self._write(self.clean, ~unsettled[:, self.columns])

    @property
    def whole(self) -> bool:
        """Whether the forward in progress computes every cell of the canvas."""
        return self._cells is None and len(self.columns) == self._length

    def _write(self, held: Tensor, new: Tensor) -> None:
        """Renew the announced cells of a tensor whose first axes are rows and columns."""
        columns = self.columns.to(held.device)
        if self._cells is not None:
            cells = self._cells.reshape(*self._cells.shape, *[1] * (new.ndim - 2))
            new = torch.where(cells.to(new.device), new, held[:, columns])
        held.index_copy_(1, columns, new)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The number of canvas columns held."""
        return 0 if self.empty else self._length

    def through(
        self,
        tokens: Int[Tensor, "B W"],
        layout: Layout,
        network: Callable[[Tensor, View, "CanvasMemory"], Tensor],
    ) -> Float[Tensor, "B W D"]:
        """Send the announced columns through a network that calls `update` in each of its layers."""
        return network(tokens, layout.at(self.columns, self.held), self)

    def branch(self, slots: Int[Tensor, " R"], count: int, rows: int) -> "Branches":
        """Continuations of the memory's `rows`, at most `count` of each: slot s of row b is number
        b * count + s."""
        assert self.hidden is not None
        slots = _in_all(slots, rows * count, len(self.hidden) // rows)
        return Branches(self, slots, count)

    def adopt(
        self,
        branches: "Branches",
        chosen: Int[Tensor, " B"],
        any_chosen: Bool[Tensor, " B"],
    ) -> None:
        """Go on from the chosen branch in every row that has one: what it computed is written here."""
        assert self.hidden is not None
        assert self.clean is not None
        assert branches.hidden is not None
        assert branches.clean is not None
        halves = len(self.hidden) // len(chosen)
        chosen = _in_all(chosen, len(branches.hidden) // halves, halves)
        any_chosen = any_chosen.repeat(halves)
        self.columns, self._length, self.held = branches.columns, branches._length, branches.held
        self._computed = branches._computed
        own = branches._cells
        self._cells = (
            any_chosen[:, None].expand(-1, len(self.columns))
            if own is None
            else own[chosen] & any_chosen[:, None]
        )
        for layer in branches.new:
            found = branches.computed(layer, chosen)
            for held, states in zip((self.keys, self.values), found, strict=True):
                held[layer] = self._room(held.get(layer), states, axis=2)
                self._write(held[layer].transpose(1, 2), states.transpose(1, 2))
        # The old hidden states live on in a prediction.
        self.hidden = self._room(self.hidden.clone(), branches.hidden, axis=1)
        self.clean = self.clean.clone()
        self._write(self.hidden, branches.hidden[chosen][:, self.columns])
        self._write(self.clean, branches.clean[chosen][:, self.columns])


class Branches(CanvasMemory):
    """A memory continued several times over, for one forward: branches read what the trunk holds, which
    is not copied for each of them, and keep what they compute to themselves.

    The columns of all branches of a row are the queries of one, side by side, and see the trunk and
    their own branch.
    """

    def __init__(self, trunk: CanvasMemory, slots: Int[Tensor, " R"], count: int) -> None:
        super().__init__(trunk.growing)
        assert trunk.hidden is not None
        assert trunk.clean is not None
        self.trunk, self.slots, self.count = trunk, slots, count
        rows = slots.div(count, rounding_mode="floor")
        self.hidden, self.clean = trunk.hidden[rows], trunk.clean[rows]
        self._computed = trunk._computed
        self.new: dict[int, tuple[Float[Tensor, "B H Q E"], Float[Tensor, "B H Q E"]]] = {}
        """Keys and values of the forward, layer by layer."""

    def through(
        self,
        tokens: Int[Tensor, "R W"],
        layout: Layout,
        network: Callable[[Tensor, View, CanvasMemory], Tensor],
    ) -> Float[Tensor, "R W D"]:
        """See `CanvasMemory.through`. A row with fewer branches than another computes one of the others'
        in the place of those it has not."""
        assert self.trunk.clean is not None
        places = len(self.trunk.clean) * self.count
        branch = torch.arange(len(self.slots), device=self.slots.device)
        rows = self.slots.new_zeros(places).index_copy(0, self.slots, branch).view(-1, self.count)
        cells = self._cells
        if cells is None:
            cells = torch.ones_like(tokens, dtype=torch.bool)
        view = layout.side_by_side(self.columns, cells, rows, self.held, self.trunk.held)
        hidden = network(tokens[rows].flatten(1, 2), view, self)
        return hidden.unflatten(1, (self.count, -1)).flatten(0, 1)[self.slots]

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """The trunk's keys and values of a layer, then the branches' own."""
        self.new[layer_idx] = key_states, value_states
        if self.whole:
            return key_states, value_states
        keys, values = (
            torch.cat([held[layer_idx][:, :, : self.trunk.held], new], dim=2)
            for held, new in zip(
                (self.trunk.keys, self.trunk.values), self.new[layer_idx], strict=True
            )
        )
        return keys, values

    def computed(self, layer: int, chosen: Int[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """Keys and values, [B, H, W, E], that some branches computed in a layer."""
        keys, values = self.new[layer]
        if self.whole:
            return keys[chosen], values[chosen]
        rows = self.slots[chosen].div(self.count, rounding_mode="floor")
        slot = self.slots[chosen] % self.count
        apart = (states.unflatten(2, (self.count, -1)) for states in (keys, values))
        keys, values = (states[rows, :, slot] for states in apart)
        return keys, values


def _in_all(rows: Int[Tensor, " R"], count: int, parts: int) -> Int[Tensor, " PR"]:
    """Rows in each of the equal parts of `count` rows that a memory has: classifier-free guidance has the
    canvas's rows twice."""
    return torch.cat([rows + part * count for part in range(parts)])
