"""Equality with the original LLaDA, on the golden data, and its own ways of decoding."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import dlmjoint
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.forward import ClassifierFree
from dlmjoint.decoding.order import EndsLast, HighProbability
from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.models.llada import REFUSED, Llada, LladaConfig
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from tests.conftest import GOLDEN
from tests.decoding.rectangles import cells_of

EXPECTED = load_file(GOLDEN / "llada" / "expected.safetensors")


def test_score_equals_the_original_row_for_row(golden_llada: TransformerBase) -> None:
    _, logits = golden_llada.score(EXPECTED["input_ids"])
    torch.testing.assert_close(logits, EXPECTED["logits_full"], atol=1e-4, rtol=0)


def test_special_ids_come_from_the_config(golden_llada: TransformerBase) -> None:
    found = (golden_llada.mask_id, golden_llada.eos_id, golden_llada.pad_id, golden_llada.bos_id)
    assert found == (510, 500, 500, None)


def test_a_saved_network_has_the_published_names_and_loads_again(tmp_path: Path) -> None:
    base = Llada.random()
    base.network.save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert set(written) == set(Llada.shapes(base.config))
    assert {name.split(".")[1] for name in written} == {"transformer"}
    again = load_base(tmp_path)
    tokens = torch.tensor([[1, 2, 39, 4]])
    assert torch.equal(again.score(tokens)[1], base.score(tokens)[1])


@pytest.mark.parametrize("setting", sorted(REFUSED))
def test_a_setting_that_would_change_the_network_is_refused(setting: str) -> None:
    values = json.loads((GOLDEN / "llada" / "config.json").read_text())
    with pytest.raises(ConfigError, match=setting):
        Llada.read_config(values | {setting: "something else"})


def test_a_config_without_mlp_or_key_head_counts_takes_the_originals_defaults() -> None:
    config = LladaConfig(d_model=64, n_heads=4, mlp_hidden_size=None, mlp_ratio=4)
    assert (config.intermediate_size, config.num_key_value_heads) == (256, 4)


def test_a_padded_embedding_widens_the_logits() -> None:
    config = LladaConfig(vocab_size=500, embedding_size=512)
    assert config.vocab_size == 512


@torch.no_grad()
def test_classifier_free_guidance_mixes_logits_with_those_of_the_masked_prompt(
    golden_llada: TransformerBase,
) -> None:
    canvas = golden_llada.canvas([[5, 6, 7], [8, 9]], 4)
    found = ClassifierFree(1.5)(golden_llada, canvas, torch.ones_like(canvas.attends), None)
    seen = golden_llada.unembed(golden_llada.predict(canvas).hidden)
    blind = canvas.tokens.clone()
    blind[0, :3] = golden_llada.mask_id
    blind[1, 1:3] = golden_llada.mask_id
    unseen = golden_llada.score(blind, canvas.attends)[1]
    expected = unseen + 2.5 * (seen - unseen)
    columns = canvas.response
    torch.testing.assert_close(
        golden_llada.unembed(found.hidden)[:, columns], expected[:, columns], atol=1e-4, rtol=1e-4
    )


def test_guidance_of_scale_zero_changes_no_token_and_costs_two_forwards() -> None:
    base, greedy = Llada.random(), Draw(temperature=0)
    plain = dlmjoint.generate(base, [[1, 2], [3]], Policy(2, draw=greedy), 8)
    guided = dlmjoint.generate(
        base, [[1, 2], [3]], Policy(2, draw=greedy, forward=ClassifierFree(0)), 8
    )
    assert guided.sequences == plain.sequences
    assert guided.base_forwards == 2 * plain.base_forwards


def test_ends_come_last_where_the_order_says_so() -> None:
    base = Llada.random()
    log_probs = torch.full((1, 3, 40), -9.0)
    log_probs[0, 0, base.eos_id], log_probs[0, 1, 5], log_probs[0, 2, 7] = -0.1, -0.5, -0.3
    order = EndsLast(HighProbability()).prepare(base)
    ranks = order.rank(cells_of(log_probs), dlmjoint.random.Noise(0, (0,)))
    assert ranks.argsort(descending=True).tolist() == [[2, 1, 0]]
