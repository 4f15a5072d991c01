"""Stop at the end of the text (FlashDLM's `early_stop`)."""

from dataclasses import dataclass

import torch

from dlmjoint.decoding.early import EarlyCommit
from dlmjoint.decoding.sent import sent
from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base


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

    def finish(self, turn: Turn) -> None:
        """Fill with the id that ended the text, unless the run forbids it."""
        response = turn.canvas.tokens[:, turn.canvas.response]
        masked = turn.canvas.masked[:, turn.canvas.response]
        ends = torch.isin(response, sent(self.end_ids, response.device)) & ~masked
        run = torch.ones_like(ends)
        for shift in range(self.consecutive):
            run &= ends.roll(shift, dims=-1)
        run[:, : self.consecutive - 1] = False
        ready = run & (masked.cumsum(-1) == 0)
        rows = ready.any(-1) & masked.any(-1)
        turn.constant(
            turn.canvas.masked & rows[:, None], response.gather(1, ready.long().argmax(-1, True))
        )
