"""Ids as pieces of text that can be shown one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

MASK = "·"
"""What stands for a cell that is not written yet."""


@dataclass(frozen=True)
class Piece:
    """A shortest stretch of cells that can be read by itself: mostly one token."""

    first: int
    """Its first cell."""
    stop: int
    """The cell after its last."""
    text: str
    kind: Literal["text", "special", "mask"]


class Speller:
    """Spells ids with a tokenizer and remembers what it has spelled."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = tokenizer.added_tokens_decoder.items()
        flagged = {token for token, content in added if content.special}
        self._tokenizer = tokenizer
        self._special = flagged | set(tokenizer.all_special_ids)
        self._texts: dict[tuple[int, ...], str] = {}

    def pieces(self, ids: Sequence[int | None]) -> list[Piece]:
        """The cells in order, None being a mask; special tokens are pieces with their own name.

        A token of a byte-level vocabulary may hold a part of a character: such neighbours make one
        piece, so that the pieces between two masks or special tokens always join to what the
        tokenizer decodes there. (A tokenizer that spells a token differently beside others, as
        SentencePiece does with spaces, makes longer pieces; they join all the same.)
        """
        found: list[Piece] = []
        for cell, token in enumerate(ids):
            if token is None:
                found.append(Piece(cell, cell + 1, MASK, "mask"))
            elif token in self._special:
                name = str(self._tokenizer.convert_ids_to_tokens(token))
                found.append(Piece(cell, cell + 1, name, "special"))
            else:
                self._append(found, ids, cell, token)
        return found

    def _append(self, found: list[Piece], ids: Sequence[int | None], cell: int, token: int) -> None:
        """Add a token of text as a piece, or to the piece before it if only both together decode."""
        text = self._decode((token,))
        if found and found[-1].kind == "text":
            before = found[-1]
            run = tuple(t for t in ids[before.first : cell + 1] if t is not None)
            joined = self._decode(run)
            # A decoder of bytes is inside a character here if and only if these differ: bytes that
            # go on with a character are each an error (U+FFFD) of their own when they stand alone.
            if joined != before.text + text:
                found[-1] = Piece(before.first, cell + 1, joined, "text")
                return
        found.append(Piece(cell, cell + 1, text, "text"))

    def _decode(self, ids: tuple[int, ...]) -> str:
        if ids not in self._texts:
            self._texts[ids] = str(self._tokenizer.decode(list(ids)))
        return self._texts[ids]
