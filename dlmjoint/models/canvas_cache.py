"""The last computed state of every canvas column, written by absolute position."""

from jaxtyping import Bool, Float
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class CanvasMemory(Cache):
    """Keys, values and last hidden states of a whole canvas.

    transformers' own caches append; a canvas is rewritten in the middle. `update` therefore writes
    the columns of the forward in progress where they belong and returns all columns, so that a
    window attends to everything else as it was last computed. Keys are stored rotated: positions
    never move.
    """

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.keys: dict[int, Float[Tensor, "B H L E"]] = {}
        self.values: dict[int, Float[Tensor, "B H L E"]] = {}
        self.hidden: Float[Tensor, "B L D"] | None = None
        self.clean: Bool[Tensor, "B L"] | None = None
        self._columns = slice(0, 0)
        self._length = 0

    def begin(self, columns: slice, length: int) -> None:
        """Announce which of the canvas's `length` columns the next forward recomputes."""
        whole = (columns.start, columns.stop) == (0, length)
        if not self.keys and not whole:
            raise ValueError(f"the first forward must compute all {length} columns, not {columns}")
        self._columns, self._length = columns, length

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """All keys and values of layer `layer_idx`, with the announced columns renewed."""
        if layer_idx not in self.keys:
            self.keys[layer_idx], self.values[layer_idx] = key_states.clone(), value_states.clone()
        else:
            self.keys[layer_idx][:, :, self._columns] = key_states
            self.values[layer_idx][:, :, self._columns] = value_states
        return self.keys[layer_idx], self.values[layer_idx]

    def store(self, hidden: Float[Tensor, "B W D"], masked: Bool[Tensor, "B L"]) -> None:
        """Keep the forward's hidden states, and which columns were already tokens when computed."""
        if self.hidden is None or self.clean is None:
            self.hidden, self.clean = hidden.clone(), ~masked
        else:
            self.hidden[:, self._columns] = hidden
            self.clean[:, self._columns] = ~masked[:, self._columns]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The number of canvas columns held."""
        return self._length if self.keys else 0
