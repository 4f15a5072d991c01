"""What a commit changes elsewhere, before the next base forward."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from dlmjoint.models.base import Base
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.parts.attention import Attention
from dlmjoint.models.parts.canvas_cache import CanvasMemory, Prefix
from dlmjoint.types import Canvas, Prediction


class Refine(ABC):
    """Renews the prediction after a commit."""

    passes: ClassVar[int]
    """Sampler passes one call costs."""

    @property
    def writer(self) -> Literal["base", "sampler"]:
        """Whose distribution a refined prediction is."""
        return "sampler" if self.passes else "base"

    def prepare(self, base: Base) -> "Refine":
        """What the loop calls, with anything heavy loaded and checked against the base."""
        return self

    def read(
        self, base: Base, prediction: Prediction, canvas: Canvas, memory: CanvasMemory | None
    ) -> Prefix | None:
        """What there is to know of finished blocks, once per base forward; None: nothing is kept of
        them."""
        return None

    @abstractmethod
    def __call__(
        self, base: Base, prediction: Prediction, canvas: Canvas, prefix: Prefix | None = None
    ) -> Prediction:
        """The prediction for the canvas as it is now; with a `prefix`, which holds what `read` found,
        only of the block that is being written."""


@dataclass(frozen=True)
class Marginals(Refine):
    """Nothing: tokens of one forward are drawn from their marginals, independently."""

    passes: ClassVar[int] = 0

    def __call__(
        self, base: Base, prediction: Prediction, canvas: Canvas, prefix: Prefix | None = None
    ) -> Prediction:
        """The same prediction."""
        return prediction


@dataclass(frozen=True, eq=False)
class Joint(Refine):
    """One pass of a joint sampler: the next token is drawn given those just written."""

    sampler: JointSampler
    passes: ClassVar[int] = 1

    def prepare(self, base: Base) -> "Joint":
        """Itself, if the sampler was trained for this base; raises MismatchError otherwise."""
        self.sampler.check(base)
        nn.Module.to(self.sampler, base.device)
        self.sampler.captured = False
        if base.captured:
            self.sampler.capture()
        return self

    def read(
        self, base: Base, prediction: Prediction, canvas: Canvas, memory: CanvasMemory | None
    ) -> Prefix | None:
        """Keys and values of finished blocks, where the cache keeps those of the base's layers too."""
        length = base.attention.block_length
        if memory is None or length is None:
            return None
        if memory.beside is None:
            memory.beside = CanvasMemory(growing=True)
        beside, columns = memory.beside, memory.columns
        # A block is finished in a forward about the next one; one that is not wider finishes none.
        if len(columns) > length:
            beside.follow(memory, len(canvas.tokens))
            tokens, positions = canvas.tokens[:, columns], canvas.positions[:, columns]
            hidden = prediction.hidden[:, columns]
            self.sampler.read(base.embed(tokens), hidden, positions, beside)
        attention = base.attention
        before = attention.blocks(canvas.positions) < attention.first(canvas)
        seen = (before & canvas.attends)[:, : beside.held]
        return Prefix(beside.keys.get(0), beside.values.get(0), seen)

    def __call__(
        self, base: Base, prediction: Prediction, canvas: Canvas, prefix: Prefix | None = None
    ) -> Prediction:
        """The sampler's hidden states in place of the base's."""
        old, attention = prediction.hidden, base.attention
        if prefix is None:
            embedding, renew = base.embed(canvas.tokens), attention.current(canvas)
            hidden = self.sampler(
                embedding, old, canvas.positions, canvas.attends, renew, canvas.padded
            )
            return Prediction(hidden, prediction.fresh)
        columns, valid = _of_block(attention, canvas, old.shape[1])
        wide = columns[..., None].expand(-1, -1, old.shape[2])
        new = self.sampler.within(
            base.embed(canvas.tokens.gather(1, columns)),
            old.gather(1, wide),
            canvas.positions.gather(1, columns),
            valid,
            prefix,
        )
        return Prediction(old.to(new.dtype).scatter(1, wide, new), prediction.fresh)


@dataclass(frozen=True)
class Trained(Refine):
    """A joint sampler named by its folder or hub id: what a config file writes."""

    sampler: Path | str
    """Folder or hub id of a published sampler."""
    passes: ClassVar[int] = 1

    def prepare(self, base: Base) -> Joint:
        """The sampler loaded in the base's dtype: in float32 beside a bfloat16 base its passes
        would cost several times what they should. To keep another dtype, load it for a `Joint`."""
        sampler = JointSampler.from_pretrained(self.sampler, dtype=base.dtype)
        return Joint(sampler).prepare(base)

    def __call__(
        self, base: Base, prediction: Prediction, canvas: Canvas, prefix: Prefix | None = None
    ) -> Prediction:
        """Not callable before `prepare`: loading inside the loop would be repeated every forward."""
        raise RuntimeError("Policy.prepare(base) loads the sampler first; generate() does that")


def _of_block(
    attention: Attention, canvas: Canvas, held: int
) -> tuple[Int[Tensor, "B W"], Bool[Tensor, "B W"]]:
    """The columns of each row's first block with a mask, as many for every row, and which of them are
    of that block: at the end of the canvas, or of what is held of it, there may be fewer."""
    current = attention.current(canvas)
    assert current is not None
    assert attention.block_length is not None
    current = current[:, :held]
    width = min(attention.block_length, held)
    first = current.byte().argmax(-1).clamp(max=held - width)
    columns = first[:, None] + torch.arange(width, device=first.device)
    return columns, current.gather(1, columns)
