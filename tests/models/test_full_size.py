"""Dream-7B, LLaDA-8B and SDAR from their published config values, without memory behind the weights."""

import json

import pytest
import torch

from dlmjoint.models.load import find_family
from tests.conftest import PUBLISHED

DREAM = {
    "model.embed_tokens.weight": (152064, 3584),
    "model.norm.weight": (3584,),
    "lm_head.weight": (152064, 3584),
}
DREAM_LAYER = {
    "self_attn.q_proj.weight": (3584, 3584),
    "self_attn.q_proj.bias": (3584,),
    "self_attn.k_proj.weight": (512, 3584),
    "self_attn.k_proj.bias": (512,),
    "self_attn.v_proj.weight": (512, 3584),
    "self_attn.v_proj.bias": (512,),
    "self_attn.o_proj.weight": (3584, 3584),
    "mlp.gate_proj.weight": (18944, 3584),
    "mlp.up_proj.weight": (18944, 3584),
    "mlp.down_proj.weight": (3584, 18944),
    "input_layernorm.weight": (3584,),
    "post_attention_layernorm.weight": (3584,),
}
LLADA = {
    "model.transformer.wte.weight": (126464, 4096),
    "model.transformer.ln_f.weight": (4096,),
    "model.transformer.ff_out.weight": (126464, 4096),
}
LLADA_LAYER = {
    "q_proj.weight": (4096, 4096),
    "k_proj.weight": (4096, 4096),
    "v_proj.weight": (4096, 4096),
    "attn_out.weight": (4096, 4096),
    "ff_proj.weight": (12288, 4096),
    "up_proj.weight": (12288, 4096),
    "ff_out.weight": (4096, 12288),
    "attn_norm.weight": (4096,),
    "ff_norm.weight": (4096,),
}


def _sdar(layers: int, width: int, inner: int, heads: int) -> dict[str, tuple[int, ...]]:
    """Qwen3's names; heads are 128 wide, eight of them keys and values."""
    layer = {
        "self_attn.q_proj.weight": (128 * heads, width),
        "self_attn.k_proj.weight": (1024, width),
        "self_attn.v_proj.weight": (1024, width),
        "self_attn.o_proj.weight": (width, 128 * heads),
        "self_attn.q_norm.weight": (128,),
        "self_attn.k_norm.weight": (128,),
        "mlp.gate_proj.weight": (inner, width),
        "mlp.up_proj.weight": (inner, width),
        "mlp.down_proj.weight": (width, inner),
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
    }
    ends = {
        "model.embed_tokens.weight": (151936, width),
        "model.norm.weight": (width,),
        "lm_head.weight": (151936, width),
    }
    return ends | {f"model.layers.{n}.{k}": v for n in range(layers) for k, v in layer.items()}


EXPECTED = {
    "dream-7b": DREAM
    | {f"model.layers.{n}.{k}": v for n in range(28) for k, v in DREAM_LAYER.items()},
    "llada-8b": LLADA
    | {f"model.transformer.blocks.{n}.{k}": v for n in range(32) for k, v in LLADA_LAYER.items()},
    "sdar-1.7b": _sdar(28, 2048, 6144, 16),
    "sdar-4b": _sdar(36, 2560, 9728, 32),
    "sdar-8b": _sdar(36, 4096, 12288, 32),
}
BILLIONS = {
    "dream-7b": 7.616,
    "llada-8b": 8.016,
    "sdar-1.7b": 2.032,
    "sdar-4b": 4.411,
    "sdar-8b": 8.191,
}

every_model = pytest.mark.parametrize("name", sorted(EXPECTED))


def _read(name: str):
    values = json.loads((PUBLISHED / f"{name}.json").read_text())
    family = find_family(values["model_type"])
    return family, family.read_config(values)


@every_model
def test_the_published_config_gives_the_published_names_and_shapes(name: str) -> None:
    family, config = _read(name)
    assert family.shapes(config) == EXPECTED[name]


@every_model
def test_the_parameters_are_as_many_as_published(name: str) -> None:
    family, config = _read(name)
    network = family.skeleton(config)
    assert round(sum(p.numel() for p in network.parameters()) / 1e9, 3) == BILLIONS[name]
    assert {p.device for p in network.parameters()} == {torch.device("meta")}


@every_model
def test_every_published_name_is_one_parameter_and_back(name: str) -> None:
    family, config = _read(name)
    own = [n for n, _ in family.skeleton(config).named_parameters()]
    published = [family.published(n) for n in own]
    assert len(set(published)) == len(own)
    assert sorted(published) == sorted(EXPECTED[name])
    assert [family.own(n) for n in published] == own
