"""An autoregressive model beside a base: it reads the same canvas, in the base's ids."""

import json
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from dlmjoint.errors import ConfigError, LoadError
from dlmjoint.models.base import IMPOSSIBLE, Base
from dlmjoint.models.dream import Dream
from dlmjoint.models.files import refused_pickle, torch_dtype
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.models.transformer import fingerprint, with_previous
from dlmjoint.types import Canvas, Prediction

UNKNOWN = -1
"""In the id map: a token the model does not have."""


class Autoregressive(Base):
    """A causal language model under the contract of bases: what it says about a column depends on
    the columns to its left alone, so only the left-most mask's prediction is worth anything.

    Tokens of the base that the model lacks are no context for it (they are treated as padding) and
    have no probability. Masks neither.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ids: Int[Tensor, " V"],
        beside: Base | None,
        *,
        name: str,
        end_ids: tuple[int, ...],
    ) -> None:
        """`ids[t]` is the model's id of token t of `beside`, `UNKNOWN` if it has none."""
        self.model = model.eval().requires_grad_(False)
        head = model.get_output_embeddings()
        assert isinstance(head, nn.Linear)
        self.head = head
        self.name, self.revision = name, getattr(model.config, "_commit_hash", None)
        device = next(model.parameters()).device
        self.ids = ids.to(device)
        self.hidden_size, self.vocab_size = model.config.hidden_size, len(ids)
        self.max_length = model.config.max_position_embeddings
        self.mask_id = len(ids) - 1 if beside is None else beside.mask_id
        self.eos_id = end_ids[0] if beside is None else beside.eos_id
        self.bos_id = None if beside is None else beside.bos_id
        self.pad_id = self.eos_id if beside is None else beside.pad_id
        self.tokenizer = None if beside is None else beside.tokenizer
        self.ends = end_ids
        """The base's ids that end a text, its end-of-text first."""

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where the model lies."""
        return self.ids.device

    @property
    def dtype(self) -> torch.dtype:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the model's weights."""
        return self.head.weight.dtype

    @classmethod
    def random(cls, seed: int = 0) -> "Autoregressive":
        """See `Base.random`."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = Qwen2Config(
                vocab_size=40,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                initializer_range=0.3,
            )
            model = Qwen2ForCausalLM(config)
        return cls(model, torch.arange(40), None, name=f"random AR {seed}", end_ids=(0,))

    @classmethod
    def beside(cls, base: Base, name: str | Path, dtype: str = "float32") -> "Autoregressive":
        """The model of a folder or hub repository, on the base's device.

        Token strings that both tokenizers have are one to one. Raises LoadError if it does not
        load, ConfigError if the vocabularies have less than half of the base's tokens in common.
        """
        try:
            model = AutoModelForCausalLM.from_pretrained(name, dtype=torch_dtype(dtype))
            tokenizer = any_tokenizer(str(name))
        except (OSError, SafetensorError, ValueError, KeyError, HFValidationError) as error:
            raise LoadError(f"the model {name} does not load: {error}") from error
        except UnpicklingError as error:
            raise refused_pickle(name) from error
        if getattr(model.config, "final_logit_softcapping", None):
            raise ConfigError(f"{name} caps its logits, which is not built in")
        ids = id_map(base, tokenizer, str(name))
        nn.Module.to(model, base.device)
        return cls(model, ids, base, name=str(name), end_ids=_ends_first(base))

    def predict(
        self,
        canvas: Canvas,
        renew: Bool[Tensor, "B L"] | None = None,
        memory: CanvasMemory | None = None,
    ) -> Prediction:
        """See `Base.predict`: output i - 1 is about column i; the first column keeps its own."""
        fresh = torch.ones_like(canvas.attends) if renew is None else renew
        ids = self.ids[canvas.tokens].masked_fill(canvas.masked, UNKNOWN)
        seen = canvas.attends & (ids != UNKNOWN)
        known = replace(canvas, tokens=ids.clamp(min=0), attends=seen, padded=None)
        if memory is None:
            hidden = self._run(known, None)
        else:
            memory.begin(self.fed(fresh))
            memory.store(self._run(known, memory), canvas.masked)
            hidden = memory.hidden
            assert hidden is not None
        aligned = torch.cat([hidden[:, :1], hidden[:, :-1]], dim=1)
        return Prediction(aligned, fresh)

    def fed(self, renew: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """See `Base.fed`: output i - 1 is about column i."""
        return with_previous(renew)

    def _run(self, canvas: Canvas, memory: CanvasMemory | None) -> Float[Tensor, "B W D"]:
        """Last hidden states of all columns, or of those the memory has announced."""
        length = canvas.tokens.shape[1]
        everything = torch.arange(length, device=canvas.tokens.device)
        columns = everything if memory is None else memory.columns
        earlier = everything[None, :] <= columns[:, None]
        own = everything[None, :] == columns[:, None]
        # Columns that are no context still see themselves: a softmax over nothing is not a number.
        mask = (earlier & canvas.attends[:, None, :]) | own
        settings: dict[str, Any] = {} if memory is None else {"past_key_values": memory}
        return self.model.base_model(
            input_ids=canvas.tokens[:, columns],
            position_ids=canvas.positions[:, columns],
            attention_mask=mask[:, None],
            use_cache=memory is not None,
            **settings,
        ).last_hidden_state

    def embed(self, tokens: Int[Tensor, "*cells"]) -> Float[Tensor, "*cells D"]:
        """The model's own embeddings; those of unknown tokens mean nothing."""
        return self.model.get_input_embeddings()(self.ids[tokens].clamp(min=0))

    def unembed(self, hidden: Float[Tensor, "*cells D"]) -> Float[Tensor, "*cells V"]:
        """Logits of the base's tokens; `IMPOSSIBLE` for those the model does not have."""
        logits = self.head(hidden)[..., self.ids.clamp(min=0)]
        return logits.masked_fill(self.ids == UNKNOWN, IMPOSSIBLE)

    @property
    def fingerprint(self) -> str:
        """Hash of some rows of head and embedding."""
        embedding = self.model.get_input_embeddings().get_parameter("weight")
        return fingerprint([self.head.weight, embedding])


def any_tokenizer(name: str) -> Any:
    """The tokenizer of a folder or hub repository, also of a Dream's: its class is remote code that
    transformers does not know, its files are ours to read."""
    settings = Path(name) / "tokenizer_config.json"
    if settings.exists():
        kind = json.loads(settings.read_text()).get("tokenizer_class")
        if kind == "DreamTokenizer":
            return Dream.load_tokenizer(Path(name))
    return AutoTokenizer.from_pretrained(name)


def id_map(base: Base, tokenizer: PreTrainedTokenizerBase, name: str) -> Int[Tensor, " V"]:
    """For every id of the base the other tokenizer's id of the same token string, or `UNKNOWN`.

    Every end of a text is the other's end of a text. Raises ConfigError if the vocabularies have
    too little in common, or if the base has no tokenizer to compare.
    """
    if base.tokenizer is None:
        raise ConfigError(
            f"{base.name} has no tokenizer: nothing says which ids of {name} are which"
        )
    theirs: dict[str, int] = tokenizer.get_vocab()  # pyright: ignore[reportAssignmentType]
    ours: dict[str, int] = base.tokenizer.get_vocab()  # pyright: ignore[reportAssignmentType]
    ids = torch.full((base.vocab_size,), UNKNOWN)
    for token, own in ours.items():
        if own < base.vocab_size:
            ids[own] = theirs.get(token, UNKNOWN)
    shared = int((ids != UNKNOWN).sum())
    if 2 * shared < len(ours):
        raise ConfigError(
            f"{name} has only {shared} of the {len(ours)} tokens of {base.name}: take a model with "
            "the same kind of tokenizer"
        )
    end = tokenizer.convert_tokens_to_ids(str(tokenizer.eos_token))
    for own in base.end_ids:
        if ids[own] == UNKNOWN:
            ids[own] = int(end)  # pyright: ignore[reportArgumentType]
    ids[base.mask_id] = UNKNOWN
    return ids


def _ends_first(base: Base) -> tuple[int, ...]:
    return (base.eos_id, *(token for token in base.end_ids if token != base.eos_id))
