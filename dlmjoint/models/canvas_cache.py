"""The last computed state of every canvas cell, written by absolute position."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


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

    @property
    def empty(self) -> bool:
        """Whether nothing was computed yet."""
        return self.hidden is None

    def keep(self, rows: Bool[Tensor, " B"]) -> None:
        """Forget all other rows, because they are finished. A memory of two rows per canvas row
        (classifier-free guidance) forgets both."""
        if self.hidden is None or self.clean is None:
            return
        rows = rows.repeat(len(self.hidden) // len(rows))
        self.hidden, self.clean = self.hidden[rows], self.clean[rows]
        for held in (self.keys, self.values):
            for layer, states in held.items():
                held[layer] = states[rows.to(states.device)]

    def begin(self, renew: Bool[Tensor, "B L"]) -> None:
        """Announce the cells the next forward recomputes; the first forward must compute all."""
        if self.empty and not bool(renew.all()):
            raise ValueError("the first forward must compute every cell of the canvas")
        self.columns = renew.any(0).nonzero().squeeze(-1)
        cells = renew[:, self.columns]
        self._cells = None if bool(cells.all()) else cells
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
            if layer_idx not in held or self._all:
                held[layer_idx] = new
            else:
                self._write(held[layer_idx].transpose(1, 2), new.transpose(1, 2))
        return self.keys[layer_idx], self.values[layer_idx]

    def store(self, hidden: Float[Tensor, "B W D"], masked: Bool[Tensor, "B L"]) -> None:
        """Keep the forward's hidden states, and which cells were already tokens when computed."""
        if self.hidden is None or self.clean is None or self._all:
            self.hidden, self.clean = hidden, ~masked
            return
        # The old hidden states live on in the last prediction: they are not written over.
        self.hidden, self.clean = self.hidden.clone(), self.clean.clone()
        self._write(self.hidden, hidden)
        self._write(self.clean, ~masked[:, self.columns])

    @property
    def _all(self) -> bool:
        return self._cells is None and len(self.columns) == self._length

    def _write(self, held: Tensor, new: Tensor) -> None:
        """Renew the announced cells of a tensor whose first axes are rows and columns."""
        if self._cells is not None:
            cells = self._cells.reshape(*self._cells.shape, *[1] * (new.ndim - 2))
            new = torch.where(cells.to(new.device), new, held[:, self.columns])
        held[:, self.columns] = new

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The number of canvas columns held."""
        return 0 if self.empty else self._length
