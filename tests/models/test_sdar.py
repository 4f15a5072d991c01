"""Equality with the original SDAR, on the golden data."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from dlmjoint.errors import ConfigError
from dlmjoint.models.load import Loading, load_base
from dlmjoint.models.parts.attention import Attention
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.models.sdar import Sdar
from dlmjoint.models.transformer import TransformerBase
from tests.conftest import GOLDEN

EXPECTED = load_file(GOLDEN / "sdar" / "expected.safetensors")


@pytest.mark.parametrize("canvas", ["clean", "canvas"])
def test_score_equals_the_original_row_by_row(golden_sdar: TransformerBase, canvas: str) -> None:
    hidden, logits = golden_sdar.score(EXPECTED[f"{canvas}_ids"])
    torch.testing.assert_close(hidden, EXPECTED[f"{canvas}_hidden"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, EXPECTED[f"{canvas}_logits"], atol=1e-4, rtol=0)


def test_the_other_kernel_gives_the_same(golden_sdar: TransformerBase) -> None:
    expected = golden_sdar.score(EXPECTED["canvas_ids"])[1]
    golden_sdar.network.set_attn_implementation("eager")
    found = golden_sdar.score(EXPECTED["canvas_ids"])[1]
    golden_sdar.network.set_attn_implementation("sdpa")
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_no_column_sees_a_later_block_and_every_column_its_own() -> None:
    base = Sdar.random()
    ids = torch.randint(0, 39, (1, 12), generator=torch.Generator().manual_seed(0))
    hidden, _ = base.score(ids)
    for column in range(12):
        other = ids.clone()
        other[0, column] = (ids[0, column] + 1) % 39
        changed = (base.score(other)[0] != hidden).any(-1)[0].tolist()
        assert changed == [seen // 4 >= column // 4 for seen in range(12)]


@torch.no_grad()
def test_a_growing_memory_predicts_block_by_block_what_the_whole_canvas_does() -> None:
    base, memory = Sdar.random(), CanvasMemory(growing=True)
    canvas = base.canvas([[1, 2, 3, 4, 5], [6, 7]], 9)
    canvas = replace(canvas, tokens=canvas.tokens.masked_fill(canvas.masked, 8))
    whole = base.predict(canvas).hidden
    for block in range(4):
        cells = base.attention.blocks(canvas.positions) == block
        if cells.any():
            found = base.predict(canvas, cells, memory).hidden[:, : memory.held]
            expected = whole[:, : memory.held]
            torch.testing.assert_close(
                found[cells[:, : memory.held]], expected[cells[:, : memory.held]]
            )
    assert memory.clean is not None
    assert memory.clean.all()


def test_the_generation_configs_end_ids_end_a_text(tmp_path) -> None:
    for file in (GOLDEN / "sdar").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 500]}))
    assert load_base(tmp_path).end_ids == (7, 500)
    assert load_base(GOLDEN / "sdar").end_ids == (500,)


def test_what_is_not_built_in_is_refused() -> None:
    values = json.loads((GOLDEN / "sdar" / "config.json").read_text())
    with pytest.raises(ConfigError, match="sliding"):
        Sdar.read_config(values | {"use_sliding_window": True})
    with pytest.raises(ConfigError, match="block_length is 0"):
        Attention(0)
    with pytest.raises(ConfigError, match="sdpa and eager are built in"):
        load_base(GOLDEN / "sdar", loading=Loading(attention="flex_attention"))
