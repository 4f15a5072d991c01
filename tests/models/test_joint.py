"""The joint sampler: equality with ADJUST's layer, the identity at zero gain, its checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dlmjoint.errors import LoadError, MismatchError
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase
from tests.conftest import GOLDEN
from tests.hostile import Hostile

ADJUST = load_file(GOLDEN / "adjust" / "expected.safetensors")
WEIGHTS = load_file(GOLDEN / "adjust" / "reference_sampler.safetensors")


def test_the_hidden_states_it_starts_from_equal_the_original(golden_dream: TransformerBase) -> None:
    hidden, logits = golden_dream.score(ADJUST["input_ids"])
    torch.testing.assert_close(hidden, ADJUST["base_hidden_shifted"], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        logits.log_softmax(-1), ADJUST["base_logprobs_shifted"], atol=1e-4, rtol=0
    )


@torch.no_grad()
def test_three_passes_equal_the_original_layer(golden_dream: TransformerBase) -> None:
    sampler = JointSampler.from_adjust(golden_dream, WEIGHTS).eval()
    rows, length = ADJUST["input_ids"].shape
    positions = torch.arange(length).expand(rows, -1)
    attends = torch.ones(rows, length, dtype=torch.bool)
    hidden, _ = golden_dream.score(ADJUST["input_ids"])
    for number, tokens in enumerate(ADJUST["tokens_passes"], 1):
        hidden = sampler(golden_dream.embed(tokens), hidden, positions, attends)
        torch.testing.assert_close(hidden, ADJUST[f"hidden_pass{number}"], atol=1e-4, rtol=0)
        torch.testing.assert_close(
            golden_dream.unembed(hidden), ADJUST[f"logits_pass{number}"], atol=1e-4, rtol=0
        )


@torch.no_grad()
def test_left_padding_changes_nothing_it_computes(
    random_dream: Dream, random_sampler: JointSampler
) -> None:
    alone = random_dream.canvas([[1, 2, 3]], 4)
    padded = random_dream.canvas([[1, 2, 3], [1] * 8], 4)
    found = []
    for canvas in (alone, padded):
        hidden = random_dream.predict(canvas).hidden
        embedding = random_dream.embed(canvas.tokens)
        found.append(random_sampler(embedding, hidden, canvas.positions, canvas.attends)[0, -7:])
    torch.testing.assert_close(found[1], found[0], atol=2e-5, rtol=1e-4)


def test_a_saved_sampler_comes_back_the_same(
    tmp_path: Path, random_dream: Dream, random_sampler: JointSampler
) -> None:
    random_sampler.save_pretrained(tmp_path)
    again = JointSampler.from_pretrained(tmp_path)
    again.check(random_dream)
    for name, tensor in random_sampler.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=0, rtol=0)
    torch.testing.assert_close(again.rotary.inv_freq, random_sampler.rotary.inv_freq)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_its_config_names_the_base(tmp_path: Path, random_sampler: JointSampler) -> None:
    random_sampler.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["base_name"] == "random Dream 0"
    assert config["base_fingerprint"] == Dream.random().fingerprint


def test_a_sampler_of_another_base_is_refused(random_sampler: JointSampler) -> None:
    with pytest.raises(MismatchError, match="belongs to random Dream 0"):
        random_sampler.check(Dream.random(seed=1))


def test_a_missing_sampler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="does not load"):
        JointSampler.from_pretrained(tmp_path / "nothing")


def test_a_corrupt_sampler_is_refused(tmp_path: Path, random_sampler: JointSampler) -> None:
    random_sampler.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(LoadError, match="does not load"):
        JointSampler.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [{}, {"gain.weight": torch.ones(2)}])
@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "last.ckpt"])
def test_a_sampler_in_a_pickle_is_refused_and_nothing_of_it_is_run(
    tmp_path: Path, random_sampler: JointSampler, pickled: str, content: dict[str, Any]
) -> None:
    folder = tmp_path / "sampler"
    random_sampler.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(content or {"a": Hostile(tmp_path / "made")}, folder / pickled)
    with pytest.raises(LoadError, match=rf"{pickled}.*nothing of it was run.*model\.safetensors"):
        JointSampler.from_pretrained(folder)
    assert not (tmp_path / "made").exists()


def test_weights_beside_a_pickle_are_read(tmp_path: Path, random_sampler: JointSampler) -> None:
    random_sampler.save_pretrained(tmp_path)
    torch.save({"a": Hostile(tmp_path / "made")}, tmp_path / "pytorch_model.bin")
    assert torch.equal(
        JointSampler.from_pretrained(tmp_path).project.weight, random_sampler.project.weight
    )


def test_a_base_is_no_sampler(golden_dream: TransformerBase) -> None:
    with pytest.raises(LoadError):
        JointSampler.from_pretrained(GOLDEN / "dream")


def test_adjust_weights_of_another_shape_are_refused(random_dream: Dream) -> None:
    with pytest.raises(MismatchError, match="do not fit"):
        JointSampler.from_adjust(random_dream, WEIGHTS)
    with pytest.raises(MismatchError, match="no weight of a one-layer ADJUST"):
        JointSampler.from_adjust(random_dream, {"drafter.layers.1.0.mlp.weight": torch.zeros(1)})
