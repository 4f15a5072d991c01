"""Where prompts come from. A new source is a new class; YAML names it by its dotted path."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.models.base import Base
from dlmjoint.random import derive_seed


class Prompts(ABC):
    """A fixed list of prompts; a prompt's place in it is its example id."""

    @abstractmethod
    def ids(self, base: Base) -> list[list[int]]:
        """The token ids of every prompt. Raises DataError if there is none, or an empty one."""


@dataclass(frozen=True)
class Unconditional(Prompts):
    """The beginning-of-text token alone."""

    n: int
    """How many."""

    def ids(self, base: Base) -> list[list[int]]:
        """n times the same prompt."""
        if base.bos_id is None:
            raise ConfigError(f"{base.name} has no beginning-of-text id: name a prompt file")
        return [[base.bos_id] for _ in range(self.n)]


@dataclass(frozen=True)
class PromptFile(Prompts):
    """One prompt per line: a text, or in a .jsonl file a record with a `prompt` field."""

    path: Path
    """The file."""
    field: str = "prompt"
    """The record's field, for .jsonl."""
    chat: bool = False
    """Put each prompt through the tokenizer's chat template as the user's message."""

    def ids(self, base: Base) -> list[list[int]]:
        """Every non-blank line."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(f"the prompt file does not open: {error}") from error
        lines = [line for line in lines if line.strip()]
        if self.path.suffix == ".jsonl":
            lines = [self._record(number, line) for number, line in enumerate(lines, 1)]
        return encode_all(base, lines, self.chat, str(self.path))

    def _record(self, number: int, line: str) -> str:
        try:
            return json.loads(line)[self.field]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path}, record {number}: expected a JSON object with {self.field!r}: {error}"
            ) from error


@dataclass(frozen=True)
class FromDataset(Prompts):
    """A column of any data set that `datasets` loads: a hub id, or a format and local files."""

    path: str
    """Hub id, or `json`, `csv`, `parquet`, `text` with `data_files`."""
    column: str
    """The text column."""
    split: str = "train"
    """Split, slices allowed: `train[:1000]`."""
    name: str | None = None
    """Configuration of the data set."""
    data_files: str | list[str] | None = None
    """Local files."""
    chat: bool = False
    """Put each prompt through the tokenizer's chat template as the user's message."""
    unique: bool = False
    """Drop repeated texts, keeping the first."""
    shuffle: bool = False
    """Take the texts in an order that depends on themselves and `seed`, not on the order of the
    rows: the same list in every process and on every machine."""
    seed: int = 0
    """Of the shuffled order."""
    n: int | None = None
    """How many, after all of this; None: all."""

    def __post_init__(self) -> None:
        if self.n is not None and self.n < 1:
            raise ConfigError(f"n is {self.n}, expected at least 1")

    def ids(self, base: Base) -> list[list[int]]:
        """The chosen rows of the column. Raises DataError if there are fewer than `n`."""
        from datasets import load_dataset

        rows = load_dataset(self.path, name=self.name, split=self.split, data_files=self.data_files)
        if self.column not in rows.column_names:
            raise ConfigError(
                f"{self.path} has no column {self.column!r}; it has {rows.column_names}"
            )
        texts = [str(text) for text in rows[self.column]]
        if self.unique:
            texts = list(dict.fromkeys(texts))
        if self.shuffle:
            texts = shuffled(texts, self.seed)
        if self.n is not None and self.n > len(texts):
            raise DataError(f"{self.path} has {len(texts)} prompts and n asks for {self.n}")
        return encode_all(base, texts[: self.n], self.chat, self.path)


@dataclass(frozen=True)
class Mixture(Prompts):
    """Several sources, one after the other."""

    sources: list[Prompts]
    """In order; example ids run through."""

    def ids(self, base: Base) -> list[list[int]]:
        """The sources' prompts, concatenated."""
        return [ids for source in self.sources for ids in source.ids(base)]


def shuffled(texts: list[str], seed: int) -> list[str]:
    """The texts in the order of a hash of each with the seed. (ADJUST's code shuffles a set after
    seeding each process with its rank, so that every process takes prompts of another list.)"""
    met = Counter[str]()
    keys = []
    for text in texts:
        met[text] += 1  # a text that comes twice has two places
        keys.append((derive_seed(seed, "shuffle", text, met[text]), text))
    return [text for _, text in sorted(keys)]


def encode_all(base: Base, texts: list[str], chat: bool, origin: str) -> list[list[int]]:
    """Token ids of all texts. Raises DataError where nothing, or an empty text, is found."""
    if not texts:
        raise DataError(f"{origin} holds no prompts")
    encode: Callable[[str], list[int]] = base.encode_chat if chat else base.encode
    rows = [encode(text) for text in texts]
    for number, row in enumerate(rows, 1):
        if not row:
            raise DataError(f"{origin}, prompt {number} is empty")
    return rows
