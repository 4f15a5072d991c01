"""Equality with the original Dream, on the golden data."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlmjoint.errors import ConfigError, LoadError
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from tests.conftest import GOLDEN

EXPECTED = load_file(GOLDEN / "dream" / "expected.safetensors")
TOKENS = json.loads((GOLDEN / "dream" / "expected_tokens.json").read_text())


def _assert_shifted(found: torch.Tensor, theirs: torch.Tensor) -> None:
    """Row i here is row i - 1 there."""
    torch.testing.assert_close(found[:, 1:], theirs[:, :-1], atol=1e-4, rtol=0)


def test_score_equals_the_original_one_row_later(golden_dream: TransformerBase) -> None:
    hidden, logits = golden_dream.score(EXPECTED["input_ids"])
    _assert_shifted(hidden, EXPECTED["hidden_full"])
    _assert_shifted(logits, EXPECTED["logits_full"])


def test_score_under_left_padding_equals_the_original_on_real_columns(
    golden_dream: TransformerBase,
) -> None:
    mask = EXPECTED["attention_mask"]
    _, logits = golden_dream.score(EXPECTED["input_ids"], mask)
    real = (mask[:, 1:] * mask[:, :-1]).bool()
    torch.testing.assert_close(
        logits[:, 1:][real], EXPECTED["logits_padded"][:, :-1][real], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("case", TOKENS["strings"], ids=lambda case: repr(case["text"][:12]))
def test_the_tokenizer_equals_the_original(golden_dream: TransformerBase, case: dict) -> None:
    assert golden_dream.encode(case["text"]) == case["ids"]
    assert golden_dream.tokenizer is not None
    assert golden_dream.tokenizer.decode(case["ids"]) == case["decoded"]


def test_the_chat_template_equals_the_original(golden_dream: TransformerBase) -> None:
    assert golden_dream.tokenizer is not None
    text = golden_dream.tokenizer.apply_chat_template(
        TOKENS["chat"]["messages"], tokenize=False, add_generation_prompt=True
    )
    assert golden_dream.encode(str(text)) == TOKENS["chat"]["ids"]


def test_special_ids_come_from_the_files(golden_dream: TransformerBase) -> None:
    found = (golden_dream.mask_id, golden_dream.bos_id, golden_dream.eos_id, golden_dream.pad_id)
    assert found == tuple(TOKENS[f"{name}_id"] for name in ("mask", "bos", "eos", "pad"))


def test_ids_beyond_the_tokenizer_are_forbidden(golden_dream: TransformerBase) -> None:
    assert golden_dream.forbidden_ids == (TOKENS["mask_id"], TOKENS["tokenizer_len"])


def test_an_unknown_family_is_named_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ConfigError, match=r"gpt2.*known.*Dream"):
        load_base(tmp_path)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=str(tmp_path)):
        load_base(tmp_path)


def test_a_name_that_is_no_folder_and_cannot_be_fetched_is_refused() -> None:
    with pytest.raises(LoadError, match="neither a folder nor a reachable hub model"):
        load_base("nobody/has-this-model")


def _copy(folder: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "dream", folder / "dream"))


def test_cut_off_weights_are_refused(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadError, match="do not load"):
        load_base(folder)


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 4
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match=r"missing: .*layers\.3"):
        load_base(folder)
