"""What the transformer families share: bidirectional blocks of transformers, run over a canvas."""

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dlmjoint.errors import LoadError
from dlmjoint.models.base import Base
from dlmjoint.models.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas, Prediction


def attention_bias(attends: Bool[Tensor, "B L"], rows: int) -> Bool[Tensor, "B 1 W L"] | None:
    """Which keys each of `rows` queries may see; None where nothing is padded (the fast kernels)."""
    if bool(attends.all()):
        return None
    return attends[:, None, None, :].expand(-1, 1, rows, -1)


def bidirectional(block: nn.Module) -> nn.Module:
    """The same block, attending in both directions: transformers' layers are built causal."""
    attention = block.self_attn
    assert isinstance(attention, nn.Module)
    attention.is_causal = False  # pyright: ignore[reportArgumentType]  a plain flag, no parameter
    return block


class TransformerBase(Base):
    """A base whose network has transformers' usual parts under `model` and an `lm_head`."""

    model_type: ClassVar[str]
    """The `model_type` of the family's config.json; `load_base` finds the family by it."""
    shift: ClassVar[int]
    """1 where output i predicts token i + 1 (Dream), 0 where it predicts token i (LLaDA)."""
    network_class: ClassVar[type[PreTrainedModel]]

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        name: str,
        revision: str | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name, self.revision = name, revision
        config = network.config
        self.config = config
        self.mask_id, self.eos_id = config.mask_token_id, config.eos_token_id
        self.bos_id, self.pad_id = config.bos_token_id, config.pad_token_id
        self.vocab_size, self.hidden_size = config.vocab_size, config.hidden_size
        self.max_length = config.max_position_embeddings

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where the network's weights lie."""
        return self.network.device

    @classmethod
    def load(
        cls, folder: Path, *, name: str, revision: str | None, device: str, dtype: torch.dtype
    ) -> "TransformerBase":
        """The network and tokenizer of a local folder, refused if any weight is missing or left over."""
        try:
            network, report = cls.network_class.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
                folder, dtype=dtype, output_loading_info=True
            )
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise LoadError(f"{name}: the weights do not load: {error}") from error
        wrong = {kind: sorted(map(str, keys)) for kind, keys in report.items() if keys}
        if wrong:
            raise LoadError(f"{name}: the weights do not fit the config: {wrong}")
        tokenizer = cls.load_tokenizer(folder)
        return cls(network.to(device), tokenizer, name=name, revision=revision)

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

    @classmethod
    @abstractmethod
    def load_tokenizer(cls, folder: Path) -> PreTrainedTokenizerBase | None:
        """The folder's tokenizer, None if it has no tokenizer files."""

    def predict(
        self, canvas: Canvas, window: slice | None = None, memory: CanvasMemory | None = None
    ) -> Prediction:
        """See `Base.predict`; the column left of a window is recomputed too where outputs are shifted."""
        length = canvas.tokens.shape[1]
        window = slice(0, length) if window is None else window
        if memory is None:
            if (window.start, window.stop) != (0, length):
                raise ValueError(f"a window ({window}) needs a memory for the other columns")
            raw = self._run(canvas, window, None)
            return Prediction(self._align(raw, canvas.attends), window)
        fed = slice(max(window.start - self.shift, 0), window.stop)
        memory.begin(fed, length)
        memory.store(self._run(canvas, fed, memory), canvas.masked)
        assert memory.hidden is not None
        return Prediction(self._align(memory.hidden, canvas.attends), window)

    def _run(
        self, canvas: Canvas, columns: slice, memory: CanvasMemory | None
    ) -> Float[Tensor, "B W D"]:
        """The network's own last hidden states of some columns, after its final norm."""
        model = self.network.model
        hidden = model.embed_tokens(canvas.tokens[:, columns])
        rotary = model.rotary_emb(hidden, canvas.positions[:, columns])
        mask = attention_bias(canvas.attends, hidden.shape[1])
        for block in model.layers:
            hidden = block(
                hidden,
                attention_mask=mask,
                position_embeddings=rotary,
                past_key_values=memory,
                use_cache=memory is not None,
            )
        return model.norm(hidden)

    def _align(
        self, raw: Float[Tensor, "B L D"], attends: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B L D"]:
        """Move each output to the column it is about.

        The first real column has no predecessor and keeps its own output: a dummy, as in Dream's
        own shift, but one that does not depend on how much padding lies left of it.
        """
        if self.shift == 0:
            return raw
        previous = torch.cat([raw[:, :1], raw[:, :-1]], dim=1)
        has_previous = torch.cat([attends[:, :1] & False, attends[:, :-1]], dim=1)
        return torch.where(has_previous[..., None], previous, raw)

    def embed(self, tokens: Int[Tensor, "*cells"]) -> Float[Tensor, "*cells D"]:
        """See `Base.embed`."""
        return self.network.model.embed_tokens(tokens)

    def unembed(self, hidden: Float[Tensor, "*cells D"]) -> Float[Tensor, "*cells V"]:
        """See `Base.unembed`."""
        return self.network.lm_head(hidden)

    @property
    def fingerprint(self) -> str:
        """Hash of the final norm and of some rows of head and embedding, read as bfloat16."""
        model = self.network.model
        digest = hashlib.sha256()
        for tensor in (model.norm.weight, self.network.lm_head.weight, model.embed_tokens.weight):
            sample = tensor.detach()[:256].to("cpu", torch.bfloat16).contiguous()
            digest.update(sample.view(torch.int16).numpy().tobytes())
        return digest.hexdigest()[:16]
