"""Where prompts come from. A new source is a new class; YAML names it by its dotted path."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.models.base import Base


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

    def ids(self, base: Base) -> list[list[int]]:
        """Every row of the column."""
        from datasets import load_dataset

        rows = load_dataset(self.path, name=self.name, split=self.split, data_files=self.data_files)
        if self.column not in rows.column_names:
            raise ConfigError(
                f"{self.path} has no column {self.column!r}; it has {rows.column_names}"
            )
        texts = [str(text) for text in rows[self.column]]
        if self.unique:
            texts = list(dict.fromkeys(texts))
        return encode_all(base, texts, self.chat, self.path)


@dataclass(frozen=True)
class Mixture(Prompts):
    """Several sources, one after the other."""

    sources: list[Prompts]
    """In order; example ids run through."""

    def ids(self, base: Base) -> list[list[int]]:
        """The sources' prompts, concatenated."""
        return [ids for source in self.sources for ids in source.ids(base)]


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
