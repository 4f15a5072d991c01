"""Ids as pieces of text that can be shown one by one."""

from collections.abc import Mapping, Sequence
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
        for cell in range(len(ids)):
            self.extend(found, ids, cell)
        return found

    def extend(self, found: list[Piece], ids: Sequence[int | None], cell: int) -> None:
        """Go on with the next cell: it is a piece of its own, or belongs to the last one found if
        only both together decode. What is found depends on no piece before the last."""
        token = ids[cell]
        if token is None:
            found.append(Piece(cell, cell + 1, MASK, "mask"))
            return
        if token in self._special:
            name = str(self._tokenizer.convert_ids_to_tokens(token))
            found.append(Piece(cell, cell + 1, name, "special"))
            return
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


class Draft:
    """The pieces of a response that is being written."""

    def __init__(self, speller: Speller, ids: Sequence[int | None]) -> None:
        self._speller, self._ids = speller, list(ids)
        self._at = [piece for piece in speller.pieces(ids) for _ in range(piece.first, piece.stop)]
        """By cell."""

    @property
    def pieces(self) -> list[Piece]:
        """As they stand, by cell."""
        return list(dict.fromkeys(self._at))

    def write(self, tokens: Mapping[int, int]) -> tuple[set[Piece], set[Piece]]:
        """Write ids into cells; returns the pieces that are gone and those that came.

        Only the neighbourhood of these cells is spelled again: writing a response takes time in
        proportion to its length, however many steps it has.
        """
        for cell, token in tokens.items():
            self._ids[cell] = token
        gone: set[Piece] = set()
        came: set[Piece] = set()
        for cell in sorted(tokens):
            before, after = self._respell(cell)
            gone |= before - came
            came = (came - before) | after
        return gone - came, came - gone

    def _respell(self, cell: int) -> tuple[set[Piece], set[Piece]]:
        """The pieces around a cell, as they were and as they are."""
        first = self._at[cell - 1].first if cell else 0
        found: list[Piece] = []
        stop = first
        # Once a piece is as it was, so is all that follows it.
        while stop < len(self._ids) and (stop <= cell or found[-1] != self._at[stop - 1]):
            self._speller.extend(found, self._ids, stop)
            stop += 1
        before = set(self._at[first:stop])
        self._at[first:stop] = [p for p in found for _ in range(p.first, p.stop)]
        return before, set(found)
