"""Guided diffusion (FlashDLM, arXiv 2505.21467, section 4): an autoregressive model decides how many
of the base's left-most drafts are written.

The guide never writes a token: at least the first draft of every forward stays, agreed with or not.
What comes out is filtered by the guide, so a result belongs beside the guide's own (`alone`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmjoint.decoding.cache import CachePolicy
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.forward import Forward
from dlmjoint.decoding.guide import Gate, Guide
from dlmjoint.decoding.guides.accept import Accept, Drafts, TopK
from dlmjoint.decoding.looks.sent import sent
from dlmjoint.decoding.order import LeftToRight, Order
from dlmjoint.decoding.refine import Refine
from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.causal import Autoregressive
from dlmjoint.models.parts.canvas_cache import CanvasMemory, Window
from dlmjoint.types import Canvas, Commit, Prediction

if TYPE_CHECKING:
    from dlmjoint.decoding.policy import Policy


@dataclass(frozen=True)
class ARGuide(Guide):
    """A guide named by its folder or hub id: what a config file writes."""

    model: Path | str
    """An autoregressive model whose tokenizer shares most of the base's tokens."""
    accept: Accept = field(default_factory=TopK)
    """When a draft passes."""
    dtype: str = "float32"
    """Torch name of the guide's weights."""

    def fits(self, order: Order, refine: Refine) -> None:
        """Only drafts from left to right can be checked by a model that reads from left to right."""
        _fits(self.accept, order, refine)

    def alone(self, draw: Draw) -> dict[str, object]:
        """The fields of a policy in which the guide writes by itself, token by token: what a guided
        result must be compared with."""
        return {
            "order": LeftToRight(),
            "draw": draw,
            "forward": Alone(self.model, self.dtype),
            "cache": NextColumn(),
        }

    def prepare(self, base: Base) -> "LoadedGuide":
        """With the model loaded beside the base."""
        return LoadedGuide(Autoregressive.beside(base, self.model, self.dtype), self.accept)

    def begin(
        self, base: Base, canvas: Canvas, policy: "Policy", memory: CanvasMemory | None
    ) -> Gate:
        """Not before `prepare`."""
        raise RuntimeError("Policy.prepare(base) loads the guide first; generate() does that")


@dataclass(frozen=True, eq=False)
class LoadedGuide(Guide):
    """A guide in memory."""

    model: Autoregressive
    accept: Accept = field(default_factory=TopK)
    """When a draft passes."""

    def fits(self, order: Order, refine: Refine) -> None:
        """See `ARGuide.fits`."""
        _fits(self.accept, order, refine)

    def begin(
        self, base: Base, canvas: Canvas, policy: "Policy", memory: CanvasMemory | None
    ) -> "ARGate":
        """A gate with an empty memory."""
        return ARGate(self.model, self.accept)


@dataclass(frozen=True)
class Alone(Forward):
    """An autoregressive model asked in the base's place."""

    model: Path | str
    """Folder or hub id."""
    dtype: str = "float32"
    """Torch name of its weights."""
    forwards: ClassVar[int] = 1

    def prepare(self, base: Base) -> "LoadedAlone":
        """With the model loaded."""
        return LoadedAlone(Autoregressive.beside(base, self.model, self.dtype))

    def __call__(
        self, base: Base, canvas: Canvas, renew: Tensor, memory: CanvasMemory | None
    ) -> Prediction:
        """Not before `prepare`."""
        raise RuntimeError("Policy.prepare(base) loads the model first; generate() does that")


@dataclass(frozen=True, eq=False)
class LoadedAlone(Forward):
    """An autoregressive model in memory, asked in the base's place."""

    model: Autoregressive
    forwards: ClassVar[int] = 1

    def speaker(self, base: Base) -> Base:
        """The model itself."""
        return self.model

    def __call__(
        self, base: Base, canvas: Canvas, renew: Tensor, memory: CanvasMemory | None
    ) -> Prediction:
        """Its prediction."""
        return self.model.predict(canvas, None if memory is None else renew, memory)


@dataclass(frozen=True)
class NextColumn(CachePolicy):
    """The usual memory of an autoregressive model: only the first mask's column is computed."""

    def memory(self) -> CanvasMemory:
        """Keys and values of the canvas."""
        return CanvasMemory()

    def renew(
        self, canvas: Canvas, memory: CanvasMemory | None, forward: int | Int[Tensor, " B"]
    ) -> Bool[Tensor, "B L"]:
        """Everything once, then one column per row."""
        assert memory is not None
        if memory.empty:
            return torch.ones_like(canvas.attends)
        return canvas.masked & (canvas.masked.cumsum(-1) == 1)


class ARGate(Gate):
    """The guide reading one canvas.

    Its keys and values are kept by absolute column, up to the last token that is settled: what a
    refused draft left behind is written over before it is read.
    """

    def __init__(self, model: Autoregressive, accept: Accept) -> None:
        self.model, self.accept = model, accept
        self.memory = CanvasMemory()
        self.settled: Int[Tensor, " B"] | None = None
        """Per row, the first column whose keys may be those of another token."""

    def check(self, turn: Turn) -> None:
        """See `Gate.check`: one guide forward for all drafts of a row."""
        drafts = turn.drafts
        if drafts is None:
            return
        unread = self._unread(turn.canvas, drafts)
        window = self._window(unread)
        if not any(window.columns):  # early rules have finished every row
            return
        self.memory.expect(window)
        passed = self._passes(turn, drafts, unread) | ~drafts.written
        # A row keeps what lies before its first refused draft, and its first draft in any case.
        number = drafts.written.cumsum(-1)
        stop = (passed.long().cumprod(-1) * drafts.written).sum(-1).clamp(min=1)
        kept = drafts.written & (number <= stop[:, None])
        last = torch.where(kept, drafts.columns, 0).amax(-1)
        self.settled = last if self.settled is None else self.settled.maximum(last)
        turn.guide_passes = turn.guide_passes + drafts.written.any(-1)
        turn.keep_first(stop)

    def keep(self, rows: Int[Tensor, " R"], count: int) -> None:
        """See `Gate.keep`."""
        self.memory.keep(rows, count)
        self.settled = None if self.settled is None else self.settled[rows]

    def _unread(self, canvas: Canvas, drafts: Commit) -> Bool[Tensor, "B L"]:
        """The columns of drafts, and of what was settled since the guide read the canvas."""
        if self.settled is None:
            return torch.ones_like(canvas.attends)
        last = torch.where(drafts.written, drafts.columns, 0).amax(-1)
        places = torch.arange(canvas.tokens.shape[1], device=last.device)
        return (places > self.settled[:, None]) & (places <= last[:, None])

    def _window(self, unread: Bool[Tensor, "B L"]) -> Window:
        """What is computed of them; the device is asked, but for a canvas that is read as a whole."""
        if self.settled is None:
            return Window((True,) * unread.shape[1], uniform=True)
        return Window.of_bits(Window.bits(self.model.fed(unread)).tolist())

    def _passes(
        self, turn: Turn, drafts: Commit, unread: Bool[Tensor, "B L"]
    ) -> Bool[Tensor, "B M"]:
        """Which drafts the rule lets pass, each looked at as if all before it had."""
        own = torch.arange(len(unread), device=unread.device)
        rows = own[:, None].expand_as(drafts.columns).flatten()
        columns = drafts.columns.flatten()
        hidden = self.model.predict(turn.canvas, unread, self.memory).hidden[rows, columns]
        base = None
        if self.accept.needs_marginals:
            base = self._fold(turn.base.unembed(turn.prediction.hidden[rows, columns]))
        found = Drafts(
            rows=rows,
            places=columns - turn.canvas.response.start,
            tokens=self._folded(drafts.tokens.flatten()),
            guide=self._fold(self.model.unembed(hidden)),
            base=base,
            draw=turn.draw,
            noise=turn.noise,
        )
        return self.accept(found).view(drafts.columns.shape)

    def _fold(self, logits: Float[Tensor, "C V"]) -> Float[Tensor, "C V"]:
        """Log-probabilities in which every end of a text is the first of them."""
        log_probs = logits.double().log_softmax(-1)
        ends = sent(self.model.ends, logits.device)
        together = log_probs[:, ends].logsumexp(-1)
        log_probs.index_fill_(-1, ends, -torch.inf)
        log_probs[:, self.model.ends[0]].copy_(together)
        return log_probs

    def _folded(self, tokens: Int[Tensor, " C"]) -> Int[Tensor, " C"]:
        ends = sent(self.model.ends, tokens.device)
        return torch.where(torch.isin(tokens, ends), ends[0], tokens)


def _fits(accept: Accept, order: Order, refine: Refine) -> None:
    if not isinstance(order, LeftToRight):
        raise ConfigError(
            f"an autoregressive guide checks drafts from left to right; the policy's order is "
            f"{type(order).__name__}, take LeftToRight"
        )
    if accept.needs_marginals and refine.passes:
        raise ConfigError(
            f"{type(accept).__name__} compares drafts with the base's marginals; drafts of a joint "
            "sampler are not drawn from them, take another rule or no sampler"
        )
