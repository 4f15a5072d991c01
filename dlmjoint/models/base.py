"""The contract every frozen base keeps, whatever its architecture."""

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub.errors import HFValidationError
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

import dlmjoint.models
from dlmjoint.errors import ConfigError, LoadError
from dlmjoint.models.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas, Prediction


class Base(ABC):
    """A frozen masked diffusion language model.

    A plain object, not an `nn.Module`: there is nothing to train, register or save, and a trainer
    that holds one does not put 15 GB into its checkpoints.

    The contract, tested for every subclass: predictions are aligned (entry i is about column i,
    whatever the model's own shift), do not depend on left padding or on the other rows, and a
    window over exact memory predicts what the whole canvas does.
    """

    model_type: ClassVar[str]
    """The `model_type` of the family's config.json; `load_base` finds the family by it."""

    name: str
    """Folder or hub id it was loaded from."""
    revision: str | None
    """The hub's commit, where there is one."""
    mask_id: int
    eos_id: int
    bos_id: int | None
    pad_id: int
    vocab_size: int
    hidden_size: int
    max_length: int
    """Columns a canvas may have."""
    device: torch.device
    tokenizer: PreTrainedTokenizerBase | None

    @abstractmethod
    def predict(
        self, canvas: Canvas, window: slice | None = None, memory: CanvasMemory | None = None
    ) -> Prediction:
        """The aligned hidden states of the canvas.

        Without a memory every column is computed. With one, the columns of `window` are computed
        (all, if it is None), every other column's keys, values and hidden states are taken from the
        memory, and the memory is brought up to date in place.
        """

    @abstractmethod
    def embed(self, tokens: Int[Tensor, "*cells"]) -> Float[Tensor, "*cells D"]:
        """The base's token embeddings."""

    @abstractmethod
    def unembed(self, hidden: Float[Tensor, "*cells D"]) -> Float[Tensor, "*cells V"]:
        """Raw logits of aligned hidden states. Forbidden ids still have theirs; `Draw` removes them."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash of the weights, the same in every dtype they are exactly representable in."""

    @classmethod
    @abstractmethod
    def load(
        cls, folder: Path, *, name: str, revision: str | None, device: str, dtype: torch.dtype
    ) -> Self:
        """The model in a local folder."""

    @classmethod
    @abstractmethod
    def read_config(cls, values: dict[str, Any]) -> PreTrainedConfig:
        """The family's config object from the values of a config.json."""

    @classmethod
    @abstractmethod
    def new_block(cls, config: PreTrainedConfig) -> nn.Module:
        """One untrained transformer block of the family, bidirectional."""

    @classmethod
    @abstractmethod
    def new_rotary(cls, config: PreTrainedConfig) -> nn.Module:
        """The family's rotary table: (tensor, positions) -> (cos, sin)."""

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """Ids that are never a token of text: the mask, and ids the tokenizer does not know
        (a Dream of 152,064 logits has a tokenizer of 151,667)."""
        known = self.vocab_size if self.tokenizer is None else len(self.tokenizer)
        return tuple(sorted({self.mask_id, *range(known, self.vocab_size)}))

    @torch.inference_mode()
    def score(
        self,
        input_ids: Int[Tensor, "B L"],
        attention_mask: Int[Tensor, "B L"] | Bool[Tensor, "B L"] | None = None,
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L V"]]:
        """Aligned hidden states and raw logits of every column: row i is about token i.

        `attention_mask` is 0 on left padding. Entries of padding columns mean nothing.
        """
        tokens = input_ids.to(self.device)
        attends = (
            torch.ones_like(tokens, dtype=torch.bool)
            if attention_mask is None
            else attention_mask.to(self.device).bool()
        )
        canvas = Canvas(tokens, attends, slice(0, tokens.shape[1]), self.mask_id)
        hidden = self.predict(canvas).hidden
        return hidden, self.unembed(hidden)

    def canvas(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Canvas:
        """A blank canvas on the base's device.

        Raises ConfigError if prompt and response together exceed the model's limit.
        """
        longest = max(map(len, prompts))
        if longest + max_new_tokens > self.max_length:
            raise ConfigError(
                f"the longest prompt has {longest} tokens; with max_new_tokens={max_new_tokens} "
                f"that is more than the {self.max_length} columns {self.name} was made for. "
                "Shorten the prompt or ask for fewer tokens"
            )
        blank = Canvas.blank(
            [list(prompt) for prompt in prompts],
            max_new_tokens,
            mask_id=self.mask_id,
            pad_id=self.pad_id,
        )
        return blank.to(self.device)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, special tokens recognised, nothing added."""
        return self._tokenizer().encode(text, add_special_tokens=False)

    def encode_chat(self, message: str) -> list[int]:
        """The ids of a user's message in the chat template, ready for the answer."""
        text = self._tokenizer().apply_chat_template(
            [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
        )
        return self.encode(str(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a response: up to its first end-of-text, special tokens left out."""
        ids = list(ids)
        if self.eos_id in ids:
            ids = ids[: ids.index(self.eos_id)]
        return str(self._tokenizer().decode(ids, skip_special_tokens=True))

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise ConfigError(f"{self.name} has no tokenizer: give and take ids instead of texts")
        return self.tokenizer


def find_family(model_type: str) -> type[Base]:
    """The family that reads configs of this `model_type`: any `Base` in `dlmjoint.models`.

    A new family is a new file there; nothing lists them. Raises ConfigError for an unknown one.
    """
    found = {}
    for module in pkgutil.iter_modules(dlmjoint.models.__path__):
        members = vars(importlib.import_module(f"dlmjoint.models.{module.name}")).values()
        for member in members:
            if inspect.isclass(member) and issubclass(member, Base) and hasattr(member, "model_type"):
                found[member.model_type] = member
    if model_type not in found:
        raise ConfigError(
            f"model_type {model_type!r} is no known family of bases; known: {sorted(found)}"
        )
    return found[model_type]


def load_base(
    name: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
) -> Base:
    """The frozen base in a local folder or a hub repository.

    `dtype` is a torch name; CPUs without bfloat16 instructions want float32. `revision` pins a hub
    commit. Raises LoadError if files are missing or corrupt, ConfigError for an unknown family.
    """
    folder, found = _local_folder(str(name), revision)
    try:
        values, _ = PreTrainedConfig.get_config_dict(folder)
    except OSError as error:
        raise LoadError(f"{name}: {error}") from error
    if not values:
        raise LoadError(f"{name} has no config.json: is it a model folder?")
    family = find_family(str(values.get("model_type")))
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype):
        raise ConfigError(f"dtype {dtype!r} is no torch dtype; try float32 or bfloat16")
    return family.load(folder, name=str(name), revision=found, device=device, dtype=torch_dtype)


def _local_folder(name: str, revision: str | None) -> tuple[Path, str | None]:
    """Where the files lie on this machine, and the commit they are, fetched if need be."""
    if Path(name).is_dir():
        if revision is not None:
            raise ConfigError(f"{name} is a folder; a revision belongs to a hub id")
        return Path(name), None
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision))
    except (OSError, ValueError, HFValidationError) as error:
        raise LoadError(f"{name} is neither a folder nor a reachable hub model: {error}") from error
    return folder, folder.name
