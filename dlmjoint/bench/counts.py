"""What decoders ask of a device, counted: operations, waits, and bytes as wide as the vocabulary.

Counted from the operations that torch dispatches, without a clock, so any machine will do; the counts
are those of the same code on a GPU.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen2Config, Qwen2ForCausalLM

from dlmjoint.bench.full_size import new_sampler, places
from dlmjoint.bench.on_base import OnBase
from dlmjoint.bench.suite import Setting
from dlmjoint.decoding.caches.freecache import FreeCache
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early_rules.end_of_text import EndOfText
from dlmjoint.decoding.early_rules.prophet import Prophet
from dlmjoint.decoding.guides.accept import TopK
from dlmjoint.decoding.guides.ar_guide import LoadedGuide
from dlmjoint.decoding.order import LeftToRight
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.decoding.schedules.budget import Budget
from dlmjoint.decoding.schedules.confidence import ConfidenceThreshold
from dlmjoint.decoding.schedules.entropy_bound import EntropyBound
from dlmjoint.models.base import Base
from dlmjoint.models.causal import Autoregressive
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise

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


GREEDY = Draw(temperature=0)
HEADINGS = ("model", "batch", "length", "what", "forwards", "operations", "waits", "vocabulary")


@dataclass(frozen=True)
class Asking:
    """A decoder of the table and the most it may ask for."""

    waits: int | None
    """Times the host may wait for the device per base forward; None: as often as there are passes."""
    policy: Callable[[Joint, Base], Policy]


DECODERS: Mapping[str, Asking] = {
    "exact": Asking(1, lambda joint, base: Policy()),
    "marginals K=4": Asking(1, lambda joint, base: Policy(4)),
    "joint K=4": Asking(1, lambda joint, base: Policy(4, refine=joint)),
    "joint K=4, greedy": Asking(1, lambda joint, base: Policy(4, refine=joint, draw=GREEDY)),
    "joint K=4, blocks": Asking(1, lambda joint, base: Policy(4, refine=joint, block_length=16)),
    "joint K=4, end of text": Asking(
        2, lambda joint, base: Policy(4, refine=joint, early=EndOfText())
    ),
    "joint K=4, FreeCache, Prophet": Asking(
        2, lambda joint, base: Policy(4, refine=joint, cache=FreeCache(16), early=Prophet())
    ),
    "threshold": Asking(2, lambda joint, base: Policy(ConfidenceThreshold(0.9))),
    "entropy bound": Asking(2, lambda joint, base: Policy(EntropyBound(0.5))),
    "guide K=4": Asking(
        2, lambda joint, base: Policy(4, order=LeftToRight(), guide=_random_guide(base))
    ),
    "budget": Asking(None, lambda joint, base: Policy(Budget(1.0, rate=(0.3,)), refine=joint)),
}
"""What is counted. A token budget over a sampler is another thing: whether there is a next pass
depends on what this one says, so the host asks after each."""


class Asked(OnBase):
    """Operations, waits and bytes as wide as the vocabulary per base forward, over whole decodings."""

    name = "counts"
    lengths = (49,)

    def points(
        self, base: TransformerBase, setting: Setting, note: Callable[[str], None]
    ) -> Iterator[dict[str, Any]]:
        """A record per batch size and length."""
        sampler = new_sampler(base)
        for length, batch_size in places(base, setting):
            note(f"counts, batch {batch_size}, length {length}")
            yield {
                "batch_size": batch_size,
                "length": length,
                "measured": {
                    name: described(*asked(base, sampler, name, batch_size, length))
                    for name in DECODERS
                },
            }

    def table(self, records: Sequence[Mapping[str, Any]]) -> Table:
        """One line per decoder; the vocabulary's bytes as a multiple of the logits' own."""
        table = Table(box=None, pad_edge=False)
        for heading in HEADINGS:
            words = heading in ("model", "what")
            table.add_column(heading, justify="left" if words else "right", no_wrap=True)
        for record in records:
            where = Path(record["model"]).name, str(record["batch_size"]), str(record["length"])
            for name, one in record["measured"].items():
                table.add_row(
                    *where,
                    name,
                    str(one["forwards"]),
                    f"{one['operations']:.0f}",
                    f"{one['waits']:.2f}",
                    f"{one['vocabulary']:.2f}",
                )
        return table


def asked(
    base: TransformerBase, sampler: JointSampler, name: str, batch_size: int, length: int
) -> tuple[int, Counts]:
    """Forwards of a decoding and what it counts, after one that made all constants."""
    policy, noise = (
        DECODERS[name].policy(Joint(sampler), base).prepare(base),
        Noise(0, tuple(range(batch_size))),
    )
    start = base.eos_id if base.bos_id is None else base.bos_id  # any one token will do
    canvas = base.canvas([[start]] * batch_size, length - 1)
    for _ in decode(base, canvas, policy, noise):
        pass
    with counting(base.vocab_size) as counts:
        forwards = sum(1 for _ in decode(base, canvas, policy, noise))
    return forwards, counts


def described(forwards: int, counts: Counts) -> dict[str, float]:
    """What a decoding counts, per forward."""
    return {
        "forwards": forwards,
        "operations": counts.operations / forwards,
        "waits": counts.waits / forwards,
        "vocabulary": counts.vocabulary_bytes / counts.logits_bytes,
    }


def _random_guide(base: Base) -> LoadedGuide:
    """A guide of the base's vocabulary that knows nothing: every second draft passes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=base.vocab_size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=base.max_length,
            initializer_range=0.3,
        )
        model = Qwen2ForCausalLM(config)
    nn.Module.to(model, base.device)
    ids = torch.arange(base.vocab_size)
    guide = Autoregressive(model, ids, base, name="a random guide", end_ids=(base.eos_id,))
    return LoadedGuide(guide, TopK(base.vocab_size // 2))
