"""SDAR (JetAstra, MIT): Qwen3's blocks, block after block; outputs not shifted.

SDAR-1.7B, 4B and 8B have this architecture: inside a block every column sees every other, across
blocks they see what lies before. Their repositories ship remote code; nothing of it is executed.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer, Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3DecoderLayer,
    Qwen3Model,
    Qwen3PreTrainedModel,
    Qwen3RotaryEmbedding,
)

from dlmjoint.errors import ConfigError
from dlmjoint.models.generation import CustomGeneration
from dlmjoint.models.parts.attention import Attention
from dlmjoint.models.parts.norm import fuse_norms
from dlmjoint.models.transformer import TransformerBase, bidirectional, read_tokenizer


class SdarConfig(Qwen3Config):
    """A Qwen3 config with a mask token and a block length."""

    model_type = "sdar"
    mask_token_id: int | None = None
    block_size: int = 4


class SdarNetwork(Qwen3PreTrainedModel, CustomGeneration):
    """The weights under their published names: `model.*` and `lm_head.weight`."""

    config_class = SdarConfig
    config: SdarConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012  transformers' way

    def __init__(self, config: SdarConfig) -> None:
        super().__init__(config)
        self.model = Qwen3Model(config)
        fuse_norms(self.model)
        for block in self.model.layers:
            bidirectional(block)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


class Sdar(TransformerBase):
    """The SDAR family."""

    model_type = "sdar"
    shift = 0
    network_class = SdarNetwork

    @classmethod
    def random(cls, seed: int = 0) -> "Sdar":
        """See `Base.random`: two layers of width 32 in blocks of four, heads wider than their share."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = SdarConfig(
                vocab_size=40,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=12,
                max_position_embeddings=64,
                initializer_range=0.3,
                block_size=4,
                mask_token_id=39,
                eos_token_id=0,
                pad_token_id=0,
                bos_token_id=1,
            )
            network = SdarNetwork(config)
        return cls(network, None, name=f"random SDAR {seed}")

    @classmethod
    def read_config(cls, values: dict[str, Any]) -> SdarConfig:
        """See `Base.read_config`; neither the config's `auto_map` (remote code) nor its attention
        kernel is followed. Raises ConfigError for sliding windows, which no published SDAR has."""
        if values.get("use_sliding_window"):
            raise ConfigError(
                "use_sliding_window is set: sliding windows are not built in for SDAR"
            )
        return SdarConfig.from_dict(
            {name: value for name, value in values.items() if name != "attn_implementation"}
        )

    @classmethod
    def attention_of(cls, config: SdarConfig) -> Attention:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `TransformerBase.attention_of`."""
        return Attention(config.block_size)

    @classmethod
    def new_block(cls, config: SdarConfig) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Base.new_block`."""
        return bidirectional(fuse_norms(Qwen3DecoderLayer(config, layer_idx=0)))

    @classmethod
    def new_rotary(cls, config: SdarConfig) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Base.new_rotary`."""
        return Qwen3RotaryEmbedding(config)

    @classmethod
    def load_tokenizer(cls, folder: Path) -> PreTrainedTokenizerBase | None:
        """SDAR's tokenizer is Qwen2's with a mask added."""
        return read_tokenizer(Qwen2Tokenizer, folder, ("vocab.json", "merges.txt"))
