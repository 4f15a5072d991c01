"""The last computed state of every canvas cell, written by absolute position."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


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


class CanvasMemory(Cache):
    """Keys, values and last hidden states of a whole canvas.

    transformers' own caches append; a canvas is rewritten in the middle. `update` therefore writes
    the cells of the forward in progress where they belong and returns all columns, so that they
    attend to everything else as it was last computed. Keys are stored rotated: positions never
    move. Cells are renewed row by row, so a row that is ahead of the others keeps what it froze.
    """

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.keys: dict[int, Float[Tensor, "B H L E"]] = {}
        self.values: dict[int, Float[Tensor, "B H L E"]] = {}
        self.hidden: Float[Tensor, "B L D"] | None = None
        self.clean: Bool[Tensor, "B L"] | None = None
        """False where a cell was still a mask when it was last computed."""
        self.columns: Int[Tensor, " W"] = torch.empty(0, dtype=torch.long)
        """The columns of the forward in progress, ascending."""
        self._cells: Bool[Tensor, "B W"] | None = None
        """Which of their cells change; None: all."""
        self._length = 0
        self._expected: Window | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was computed yet."""
        return self.hidden is None

    def keep(self, rows: Int[Tensor, " R"], count: int) -> None:
        """Forget all other rows of `count`, because they are finished. A memory of two rows per canvas
        row (classifier-free guidance) forgets both."""
        if self.hidden is None or self.clean is None:
            return
        rows = torch.cat([rows + first for first in range(0, len(self.hidden), count)])
        self.hidden, self.clean = self.hidden[rows], self.clean[rows]
        for held in (self.keys, self.values):
            for layer, states in held.items():
                held[layer] = states[rows.to(states.device)]

    def expect(self, window: Window) -> None:
        """Tell the memory beforehand what the next forward computes: it then need not ask the device."""
        self._expected = window

    def begin(self, renew: Bool[Tensor, "B L"]) -> None:
        """Announce the cells the next forward recomputes; the first forward must compute all."""
        window, self._expected = self._expected, None
        if window is None:
            window = Window.of_bits(Window.bits(renew).tolist())
        if self.empty and not (window.uniform and all(window.columns)):
            raise ValueError("the first forward must compute every cell of the canvas")
        some = renew.any(0).byte()
        self.columns = some.sort(descending=True, stable=True).indices[: sum(window.columns)]
        self._cells = None if window.uniform else renew[:, self.columns]
        self._length = renew.shape[1]

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
            if layer_idx not in held or self.whole:
                held[layer_idx] = new
            else:
                self._write(held[layer_idx].transpose(1, 2), new.transpose(1, 2))
        return self.keys[layer_idx], self.values[layer_idx]

    def store(self, hidden: Float[Tensor, "B W D"], masked: Bool[Tensor, "B L"]) -> None:
        """Keep the forward's hidden states, and which cells were already tokens when computed."""
        if self.hidden is None or self.clean is None or self.whole:
            self.hidden, self.clean = hidden, ~masked
            return
        # The old hidden states live on in the last prediction: they are not written over.
        self.hidden, self.clean = self.hidden.clone(), self.clean.clone()
        self._write(self.hidden, hidden)
        self._write(self.clean, ~masked[:, self.columns])

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
