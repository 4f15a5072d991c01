"""Stop at the end of the text (FlashDLM's `early_stop`)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlmjoint.decoding.early import EarlyCommit
from dlmjoint.decoding.looks.sent import sent
from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.types import Canvas


@dataclass(frozen=True)
class EndOfText(EarlyCommit):
    """A row whose text is finished - an end-of-text with no mask to its left - is filled with
    end-of-text (FlashDLM's `early_stop`; `consecutive` guards against a chance one)."""

    consecutive: int = 1
    """End-of-text tokens in a row that are needed."""
    end_ids: tuple[int, ...] = ()
    """Ids that end a text; empty: the base's own."""

    def __post_init__(self) -> None:
        if self.consecutive < 1:
            raise ConfigError(f"consecutive is {self.consecutive}, expected at least 1")

    def prepare(self, base: Base) -> "EndOfText":
        """With the base's end ids."""
        return self if self.end_ids else EndOfText(self.consecutive, base.end_ids)

    def ready(self, turn: Turn) -> Bool[Tensor, " B"]:
        """Those whose text is finished."""
        return _ended(turn, self.end_ids, self.consecutive)[0]

    def finish(self, turn: Turn) -> None:
        """Fill with the id that ended the text, unless the run forbids it."""
        rows, tokens = _ended(turn, self.end_ids, self.consecutive)
        turn.constant(turn.canvas.masked & rows[:, None], tokens)


@dataclass(frozen=True)
class AtEnd(EarlyCommit):
    """A row whose text is finished has no further blocks. What a base that writes block after block
    does by itself: the rest of its canvas, whose length is only a bound, is padded and costs nothing.
    A text does not end before its last anchor.
    """

    end_ids: tuple[int, ...]
    """Ids that end a text."""
    pad_id: int
    """What the rest is filled with."""

    def ready(self, turn: Turn) -> Bool[Tensor, " B"]:
        """Those whose text is finished."""
        return _ended(turn, self.end_ids, 1, _behind_anchors(turn.canvas))[0]

    def finish(self, turn: Turn) -> None:
        """Pad."""
        rows, tokens = _ended(turn, self.end_ids, 1, _behind_anchors(turn.canvas))
        turn.constant(
            turn.canvas.masked & rows[:, None], torch.full_like(tokens, self.pad_id), "end"
        )


def _ended(
    turn: Turn,
    end_ids: tuple[int, ...],
    consecutive: int,
    where: Bool[Tensor, "B N"] | None = None,
) -> tuple[Bool[Tensor, " B"], Int[Tensor, "B 1"]]:
    """The rows with so many ends in a row and no mask to their left, but masks somewhere; and the id
    that ended each. `where` says which response columns' ends count, if not all do."""
    response = turn.canvas.tokens[:, turn.canvas.response]
    masked = turn.canvas.masked[:, turn.canvas.response]
    ends = torch.isin(response, sent(end_ids, response.device)) & ~masked
    ends = ends if where is None else ends & where
    run = torch.ones_like(ends)
    for shift in range(consecutive):
        run &= ends.roll(shift, dims=-1)
    run[:, : consecutive - 1] = False
    ready = run & (masked.cumsum(-1) == 0)
    rows = ready.any(-1) & masked.any(-1)
    return rows, response.gather(1, ready.long().argmax(-1, True))


def _behind_anchors(canvas: Canvas) -> Bool[Tensor, "B N"] | None:
    """The response columns behind a row's last anchor; None without anchors."""
    if canvas.anchors is None:
        return None
    later = canvas.anchors[:, canvas.response].flip(-1).cumsum(-1).flip(-1)
    return later == 0
