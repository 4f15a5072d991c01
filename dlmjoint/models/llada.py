"""LLaDA (arXiv 2502.09992): Llama's blocks without the causal mask, outputs not shifted.

LLaDA-8B-Base/Instruct and LLaDA-1.5 have this architecture. The published files keep the names of
an older code base for weights and settings; both are mapped here and nowhere else.

Departure: the original rotates queries and keys in float32 (`rope_full_precision`), Llama's layers
in the network's own dtype. In float32 the two are equal; in bfloat16 they differ by rounding.
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaModel,
    LlamaPreTrainedModel,
    LlamaRotaryEmbedding,
)

from dlmjoint.errors import ConfigError
from dlmjoint.models.generation import CustomGeneration
from dlmjoint.models.parts.norm import fuse_norms
from dlmjoint.models.transformer import TransformerBase, bidirectional, read_tokenizer

NAMES = {
    "model.transformer.wte.": "model.embed_tokens.",
    "model.transformer.ln_f.": "model.norm.",
    "model.transformer.ff_out.": "lm_head.",
    "model.transformer.blocks.": "model.layers.",
    ".attn_norm.": ".input_layernorm.",
    ".ff_norm.": ".post_attention_layernorm.",
    ".q_proj.": ".self_attn.q_proj.",
    ".k_proj.": ".self_attn.k_proj.",
    ".v_proj.": ".self_attn.v_proj.",
    ".attn_out.": ".self_attn.o_proj.",
    ".ff_proj.": ".mlp.gate_proj.",
    ".up_proj.": ".mlp.up_proj.",
    ".ff_out.": ".mlp.down_proj.",
}
"""Parts of the published weight names, and of transformers' names."""

REFUSED: dict[str, tuple[object, ...]] = {
    "block_type": ("llama",),
    "activation_type": ("silu",),
    "layer_norm_type": ("rms",),
    "rope": (True,),
    "alibi": (False,),
    "include_bias": (False,),
    "include_qkv_bias": (False,),
    "bias_for_layer_norm": (False, None),
    "attention_layer_norm": (False,),
    "input_emb_norm": (False,),
    "scale_logits": (False,),
    "multi_query_attention": (False, None),
}
"""Settings of the original code that change what a network computes, and the values every
published LLaDA has; others are refused, not guessed."""


class LladaConfig(PreTrainedConfig):
    """The settings of a published config.json, readable under Llama's names too."""

    model_type = "llada"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "intermediate_size": "mlp_hidden_size",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "max_position_embeddings": "max_sequence_length",
        "tie_word_embeddings": "weight_tying",
        "initializer_range": "init_std",
    }
    d_model: int = 4096
    mlp_hidden_size: int | None = None
    """None: `mlp_ratio` times `d_model`."""
    mlp_ratio: int = 4
    n_layers: int = 32
    n_heads: int = 32
    n_kv_heads: int | None = None
    """None: as many as `n_heads`."""
    max_sequence_length: int = 4096
    vocab_size: int = 126464
    embedding_size: int | None = None
    """Rows of embedding and head, where they are padded beyond `vocab_size`."""
    rope_theta: float = 500000.0
    rope_parameters: dict[str, Any] | None = None
    rms_norm_eps: float = 1e-5
    weight_tying: bool = False
    init_std: float = 0.02
    attention_dropout: float = 0.0
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    mask_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for key, known in REFUSED.items():
            if kwargs.get(key, known[0]) not in known:
                raise ConfigError(
                    f"{key}={kwargs[key]!r} is not built in for LLaDA: {known[0]!r} is"
                )
        self.n_kv_heads = self.n_kv_heads or self.n_heads
        self.mlp_hidden_size = self.mlp_hidden_size or self.mlp_ratio * self.d_model
        self.vocab_size = max(self.vocab_size, self.embedding_size or 0)
        self.rope_parameters = {"rope_type": "default", "rope_theta": self.rope_theta}
        super().__post_init__(**kwargs)


class LladaNetwork(LlamaPreTrainedModel, CustomGeneration):
    """A Llama without a causal mask; its weights are published under the names in `NAMES`."""

    config_class = LladaConfig
    config: LladaConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012  transformers' way

    def __init__(self, config: LladaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)  # pyright: ignore[reportArgumentType]  Llama's names are there
        fuse_norms(self.model)
        for block in self.model.layers:
            bidirectional(block)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


register_checkpoint_conversion_mapping(
    LladaNetwork.__name__, [WeightRenaming(theirs, ours) for theirs, ours in NAMES.items()]
)


class Llada(TransformerBase):
    """The LLaDA family."""

    model_type = "llada"
    shift = 0
    network_class = LladaNetwork
    names = NAMES

    @classmethod
    def random(cls, seed: int = 0) -> "Llada":
        """See `Base.random`: two layers of width 32 with fewer key than query heads."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = LladaConfig(
                vocab_size=40,
                d_model=32,
                mlp_hidden_size=64,
                n_layers=2,
                n_heads=4,
                n_kv_heads=2,
                max_sequence_length=64,
                init_std=0.3,
                mask_token_id=39,
                eos_token_id=0,
                pad_token_id=0,
                bos_token_id=1,
            )
            network = LladaNetwork(config)
        return cls(network, None, name=f"random LLaDA {seed}")

    @classmethod
    def read_config(cls, values: dict[str, Any]) -> LladaConfig:
        """See `Base.read_config`; raises ConfigError for settings no published LLaDA has."""
        return LladaConfig.from_dict(values)

    @classmethod
    def new_block(cls, config: LladaConfig) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Base.new_block`."""
        return bidirectional(fuse_norms(LlamaDecoderLayer(config, layer_idx=0)))  # pyright: ignore[reportArgumentType]

    @classmethod
    def new_rotary(cls, config: LladaConfig) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Base.new_rotary`."""
        return LlamaRotaryEmbedding(config)  # pyright: ignore[reportArgumentType]

    @classmethod
    def load_tokenizer(cls, folder: Path) -> PreTrainedTokenizerBase | None:
        """LLaDA's tokenizer is one tokenizer.json."""
        return read_tokenizer(PreTrainedTokenizerFast, folder, ("tokenizer.json",))
