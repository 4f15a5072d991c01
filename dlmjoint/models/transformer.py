"""What the transformer families share: bidirectional blocks of transformers, run over a canvas."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dlmjoint.errors import LoadError
from dlmjoint.models.base import Base
from dlmjoint.models.parts.attention import Attention, as_mask
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.models.parts.captured import Captured
from dlmjoint.models.parts.cast import cast
from dlmjoint.models.parts.layout import Layout, Rotary, View
from dlmjoint.types import Canvas, Prediction

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
FINGERPRINT = ("model.norm.weight", HEAD, EMBEDDING)
"""The weights a fingerprint is taken of: the first rows of each. None of them is ever quantised."""
FINGERPRINT_ROWS = 256


def with_previous(cells: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The cells and those to the left of each: where outputs are shifted they are about the cells."""
    return cells | torch.nn.functional.pad(cells[:, 1:], (0, 1))


def bidirectional(block: nn.Module) -> nn.Module:
    """The same block, attending in both directions: transformers' layers are built causal."""
    attention = block.self_attn
    assert isinstance(attention, nn.Module)
    attention.is_causal = False  # pyright: ignore[reportArgumentType]  a plain flag, no parameter
    return block


def read_tokenizer(
    kind: type[PreTrainedTokenizerBase], folder: Path, needed: Sequence[str]
) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder; None if it has none of the files a tokenizer consists of.

    Raises LoadError if some are missing or damaged.
    """
    lacking = [name for name in needed if not (folder / name).exists()]
    if len(lacking) == len(needed) and not (folder / "tokenizer_config.json").exists():
        return None
    if lacking:
        raise LoadError(f"{folder}: the tokenizer lacks {', '.join(lacking)}; fetch it again")
    try:
        return kind.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise LoadError(f"{folder}: the tokenizer does not load: {error}") from error


def fingerprint(weights: Sequence[Tensor]) -> str:
    """Hash of the first rows of the `FINGERPRINT` weights, read as bfloat16."""
    digest = hashlib.sha256()
    for weight in weights:
        sample = weight.detach()[:FINGERPRINT_ROWS].to("cpu", torch.bfloat16).contiguous()
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


class TransformerBase(Base):
    """A base whose network has transformers' usual parts under `model` and an `lm_head`."""

    model_type: ClassVar[str]
    """The `model_type` of the family's config.json; `load_base` finds the family by it."""
    shift: ClassVar[int]
    """1 where output i predicts token i + 1 (Dream), 0 where it predicts token i (LLaDA)."""
    network_class: ClassVar[type[PreTrainedModel]]
    names: ClassVar[Mapping[str, str]] = {}
    """Parts of the published weight names and of the network's own, where they differ."""

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
        if self.bos_id is None and tokenizer is not None:
            # LLaDA's config leaves it to the tokenizer.
            self.bos_id = tokenizer.bos_token_id  # pyright: ignore[reportAttributeAccessIssue]
        self.vocab_size, self.hidden_size = config.vocab_size, config.hidden_size
        self.max_length = config.max_position_embeddings
        self.attention = self.attention_of(config)
        self._layout: Layout | None = None
        self._forward: Captured[Tensor] | None = None

    def capture(self) -> None:
        """Compile forwards of whole canvases; those with a memory, whose shapes are seldom the same twice,
        stay as they are. Raises ConfigError where there is no compiler."""
        if self._forward is None:
            self._forward = Captured(self._whole, f"a forward of {self.name}", self.device)
        self.captured = True

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where canvases are kept: with the embeddings."""
        return self.network.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of hidden states; a quantised base's own weights are smaller."""
        return self.network.model.norm.weight.dtype

    @classmethod
    @abstractmethod
    def read_config(cls, values: dict[str, Any]) -> PreTrainedConfig:
        """The family's config object from the values of a config.json."""

    @classmethod
    def attention_of(cls, config: PreTrainedConfig) -> Attention:
        """Which columns of a base with this config see which: every column every other."""
        return Attention()

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
        """The folder's tokenizer, None if it has no tokenizer files at all.

        Raises LoadError if only some of them are there.
        """

    @classmethod
    def skeleton(cls, config: PreTrainedConfig) -> PreTrainedModel:
        """The network without memory behind its weights: names and shapes."""
        with torch.device("meta"):
            return cls.network_class(config)

    @classmethod
    def published(cls, name: str) -> str:
        """The name a weight of the network has in published files."""
        for theirs, ours in reversed(list(cls.names.items())):
            name = name.replace(ours, theirs, 1)
        return name

    @classmethod
    def own(cls, name: str) -> str:
        """The network's name of a weight in published files."""
        for theirs, ours in cls.names.items():
            name = name.replace(theirs, ours, 1)
        return name

    @classmethod
    def shapes(cls, config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
        """The weights published files must hold, by their published names; a tied head is none."""
        network = cls.skeleton(config)
        tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
        return {
            cls.published(name): tuple(parameter.shape)
            for name, parameter in network.named_parameters()
            if name not in tied
        }

    def predict(
        self,
        canvas: Canvas,
        renew: Bool[Tensor, "B L"] | None = None,
        memory: CanvasMemory | None = None,
    ) -> Prediction:
        """See `Base.predict`; where outputs are shifted, the column to the left of every renewed one
        is computed too."""
        fresh = torch.ones_like(canvas.attends) if renew is None else renew
        if memory is None:
            if renew is not None and not bool(renew.all()):
                raise ValueError("renewing some cells needs a memory for the others")
            return Prediction(self._align(self._run(canvas), canvas), fresh)
        memory.begin(self.fed(fresh))
        memory.store(self._run(canvas, memory), self.attention.unsettled(canvas))
        assert memory.hidden is not None
        return Prediction(self._align(memory.hidden, canvas), fresh)

    def fed(self, renew: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """The cells whose outputs are about the renewed ones."""
        return renew if self.shift == 0 else with_previous(renew)

    def _run(self, canvas: Canvas, memory: CanvasMemory | None = None) -> Float[Tensor, "B W D"]:
        """The network's own last hidden states after its final norm: of all columns, or of those
        the memory has announced."""
        some = None if memory is None or memory.whole else memory
        self._layout = layout = Layout.of(
            self.config,
            self.attention,
            self.network.model.rotary_emb,
            self.network.model.embed_tokens.weight,
            canvas.positions,
            canvas.attends,
            canvas.padded,
            self._layout,
        )
        if some is None and memory is None and self.captured and self._forward is not None:
            # A clone: tensors made in inference mode and others are compiled for apart.
            return self._forward(canvas.tokens.clone(), layout.all.mask, layout.rotary)
        if some is None:
            return self._through(canvas.tokens, layout.all, memory)
        return some.through(canvas.tokens[:, some.columns], layout, self._through)

    def run(
        self,
        tokens: Int[Tensor, "B Q"],
        positions: Int[Tensor, "B Q"],
        seen: Bool[Tensor, "B Q Q"],
    ) -> Float[Tensor, "B Q D"]:
        """The network's own last hidden states, not aligned, where columns (second axis) see others
        (third) in a pattern of the caller's."""
        model = self.network.model
        like = model.embed_tokens.weight.new_zeros(1).expand(*tokens.shape, 1)
        view = View(as_mask(self.config, like, seen), model.rotary_emb(like, positions))
        return self._through(tokens, view, None)

    def _whole(
        self, tokens: Int[Tensor, "B L"], mask: Tensor | None, rotary: Rotary
    ) -> Float[Tensor, "B L D"]:
        """What is compiled."""
        return self._through(tokens, View(mask, rotary), None)

    def _through(
        self, tokens: Int[Tensor, "B W"], view: View, memory: CanvasMemory | None
    ) -> Float[Tensor, "B W D"]:
        """Through embedding, blocks and final norm."""
        model = self.network.model
        hidden = model.embed_tokens(tokens)
        for block in model.layers:
            hidden = block(
                hidden,
                attention_mask=view.mask,
                position_embeddings=view.rotary,
                past_key_values=memory,
                use_cache=memory is not None,
            )
        # Back to the canvas's device: a `device_map` may have left the last layer on another.
        hidden = model.norm(hidden)
        return hidden if hidden.device == tokens.device else hidden.to(tokens.device)

    def _align(self, raw: Float[Tensor, "B L D"], canvas: Canvas) -> Float[Tensor, "B L D"]:
        """Move each output to the column it is about.

        The first real column has no predecessor and keeps its own output: a dummy, as in Dream's
        own shift, but one that does not depend on how much padding lies left of it.
        """
        if self.shift == 0:
            return raw
        previous = torch.cat([raw[:, :1], raw[:, :-1]], dim=1)
        if canvas.padded is False:
            return previous
        attends = canvas.attends
        has_previous = torch.cat([attends[:, :1] & False, attends[:, :-1]], dim=1)
        return torch.where(has_previous[..., None], previous, raw)

    def embed(self, tokens: Int[Tensor, "*cells"]) -> Float[Tensor, "*cells D"]:
        """See `Base.embed`."""
        return self.network.model.embed_tokens(tokens)

    def unembed(self, hidden: Float[Tensor, "*cells D"]) -> Float[Tensor, "*cells V"]:
        """See `Base.unembed`; in the base's own dtype, whatever the sampler's."""
        logits = self.network.lm_head(cast(hidden, self.dtype))
        return logits if logits.device == hidden.device else logits.to(hidden.device)

    @property
    def fingerprint(self) -> str:
        """Hash of the final norm and of some rows of head and embedding."""
        return fingerprint([self.network.get_parameter(name) for name in FINGERPRINT])
