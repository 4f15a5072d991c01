"""Dream (arXiv 2508.15487): Qwen2.5's blocks without the causal mask, outputs shifted by one.

Dream-v0-Base/Instruct-7B, Dream-Coder and DiffuCoder have this architecture. Their repositories
ship remote code that current transformers cannot run; nothing of it is executed here.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2Tokenizer
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2DecoderLayer,
    Qwen2Model,
    Qwen2PreTrainedModel,
    Qwen2RotaryEmbedding,
)

from dlmjoint.models.generation import CustomGeneration
from dlmjoint.models.parts.norm import fuse_norms
from dlmjoint.models.transformer import TransformerBase, bidirectional, read_tokenizer


class DreamConfig(Qwen2Config):
    """A Qwen2 config with a mask token."""

    model_type = "Dream"
    mask_token_id: int | None = None


class DreamNetwork(Qwen2PreTrainedModel, CustomGeneration):
    """The weights under their published names: `model.*` and `lm_head.weight`."""

    config_class = DreamConfig
    config: DreamConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012  transformers' way

    def __init__(self, config: DreamConfig) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        fuse_norms(self.model)
        for block in self.model.layers:
            bidirectional(block)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


class Dream(TransformerBase):
    """The Dream family."""

    model_type = "Dream"
    shift = 1
    network_class = DreamNetwork

    @classmethod
    def random(cls, seed: int = 0) -> "Dream":
        """See `Base.random`: two layers of width 32, weights large enough to disagree."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = DreamConfig(
                vocab_size=40,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                initializer_range=0.3,
                mask_token_id=39,
                eos_token_id=0,
                pad_token_id=0,
                bos_token_id=1,
            )
            network = DreamNetwork(config)
        return cls(network, None, name=f"random Dream {seed}")

    @classmethod
    def read_config(cls, values: dict[str, Any]) -> DreamConfig:
        """See `Base.read_config`; the config's own `auto_map` (remote code) is not followed."""
        return DreamConfig.from_dict(values)

    @classmethod
    def new_block(cls, config: DreamConfig) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Base.new_block`."""
        return bidirectional(fuse_norms(Qwen2DecoderLayer(config, layer_idx=0)))

    @classmethod
    def new_rotary(cls, config: DreamConfig) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Base.new_rotary`."""
        return Qwen2RotaryEmbedding(config)

    @classmethod
    def load_tokenizer(cls, folder: Path) -> PreTrainedTokenizerBase | None:
        """Dream's tokenizer is Qwen2's: the hub's `DreamTokenizer` names the same algorithm."""
        return read_tokenizer(Qwen2Tokenizer, folder, ("vocab.json", "merges.txt"))
