"""What a piece of code asks of a device: operations, waits, and bytes as wide as the vocabulary.

Counted from the operations that torch dispatches, so any machine will do; the counts are those of
the same code on a GPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = {
    "_local_scalar_dense", "_unique2", "bincount", "equal", "masked_select", "nonzero",
    "unique_consecutive", "unique_dim",
}  # fmt: skip
"""Operations whose result the host must see: `item`, `bool`, sizes that depend on values."""
FROM_THE_HOST = "lift_fresh"
"""What `torch.tensor` dispatches: values that the device gets from the host."""
SOME_CELLS = {"index_fill_", "scatter_", "index_put_", "index_copy_"}
"""Operations that write only where an index says, into a tensor that may be much larger."""
HEADS = {"mm", "addmm", "bmm", "linear"}
"""Operations a head may consist of."""


@dataclass
class Counts:
    """Totals of what was run."""

    operations: int = 0
    """Operations dispatched; a GPU launches a kernel for most of them."""
    waits: int = 0
    """Times the host waits for the device, `tolist` included."""
    vocabulary_bytes: int = 0
    """Bytes written into tensors whose last axis is the vocabulary."""
    logits_bytes: int = 0
    """Of these, what the head wrote, as float32."""


class _Counter(TorchDispatchMode):
    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size, self.counts = vocab_size, Counts()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.counts.operations += 1
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in WAITS or name == FROM_THE_HOST or _by_mask(name, given[1:]):
            self.counts.waits += 1
        for made in tree_leaves(found):
            if isinstance(made, Tensor) and made.ndim and made.shape[-1] == self.vocab_size:
                self._wide(func, name, made, given)
        return found

    def _wide(self, func: Any, name: str, made: Tensor, given: list[Tensor]) -> None:
        if made.numel() == self.vocab_size:  # a constant of the vocabulary, not of any cell
            return
        storages = {one.untyped_storage().data_ptr() for one in given}
        writes = any(
            r.alias_info is not None and r.alias_info.is_write for r in func._schema.returns
        )
        if made.untyped_storage().data_ptr() in storages and not writes:
            return  # a view
        cells = made.numel() // self.vocab_size
        written = made.numel()
        if name in SOME_CELLS:
            index = given[1].numel()
            written = cells * index if name == "index_fill_" else index
        self.counts.vocabulary_bytes += written * made.element_size()
        if name in HEADS:
            self.counts.logits_bytes += 4 * written


def _by_mask(name: str, indices: list[Tensor]) -> bool:
    """Whether an operation looks for the places where a mask is true."""
    return name in {"index", "index_put", "index_put_"} and any(
        index.dtype == torch.bool for index in indices
    )


@contextmanager
def counting(vocab_size: int) -> Iterator[Counts]:
    """Counts what is run inside."""
    counter, plain = _Counter(vocab_size), Tensor.tolist

    def counted(self: Tensor) -> Any:
        counter.counts.waits += 1
        return plain(self)

    Tensor.tolist = counted  # it is dispatched as nothing
    try:
        with counter:
            yield counter.counts
    finally:
        Tensor.tolist = plain


def counted(thing: Callable[[], object], vocab_size: int) -> Counts:
    """What one call counts."""
    with counting(vocab_size) as counts:
        thing()
    return counts
