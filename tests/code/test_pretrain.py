"""The code base is trained by the one recipe, and a run goes on where another ended."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch

import dlmjoint
from dlmjoint.code.corpus import MANIFEST
from dlmjoint.code.pretrain import CANVAS, Functions, canvases, pretrain_base
from dlmjoint.models.dream import Dream
from dlmjoint.pretrain.train import HISTORY, History

TEXTS = [f"def add_{n}(self, value):\n    return self.total + value * {n}" for n in range(64)]
SMALL = {
    "vocab_size": 320,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "batch_size": 8,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of one kind of function."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "train.jsonl").write_text("".join(json.dumps(text) + "\n" for text in TEXTS))
    row = {"distribution": "adder", "version": "1.0", "licence": "MIT", "split": "train"}
    manifest = {
        "functions": {"train": len(TEXTS), "validation": 0, "test": 0},
        "distributions": [row | {"functions": len(TEXTS), "unparsable_files": 0}],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base after three steps."""
    folder = tmp_path_factory.mktemp("base")
    pretrain_base(folder, corpus, steps=3, **SMALL)
    return folder


def test_a_trained_folder_is_a_base_whose_tokenizer_loses_no_function(trained: Path) -> None:
    base = dlmjoint.load_base(trained)
    assert base.tokenizer is not None
    assert [base.decode(base.encode(text)) for text in TEXTS] == TEXTS


def test_a_canvas_is_a_function_between_its_opening_and_its_end(trained: Path) -> None:
    tokenizer = Dream.load_tokenizer(trained)
    assert tokenizer is not None
    rows = canvases([*TEXTS, "x" * 400], tokenizer)
    assert rows.shape == (len(TEXTS), CANVAS)
    assert tokenizer.batch_decode(rows, skip_special_tokens=True) == TEXTS
    assert (rows[:, 0] == tokenizer.bos_token_id).all()
    assert (rows[:, -1] == tokenizer.eos_token_id).all()


def test_every_epoch_shows_every_function_once_in_an_order_of_its_own() -> None:
    rows = torch.arange(10)[:, None].expand(10, 4).to(torch.int16)
    seen = [int(canvas[0]) for canvas, _ in islice(Functions(rows, seed=3), 20)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


@pytest.mark.parametrize("first", [0, 4, 10, 17])
def test_a_stream_may_begin_with_any_example(first: int) -> None:
    rows = torch.arange(10)[:, None].expand(10, 4).to(torch.int16)
    whole = [int(canvas[0]) for canvas, _ in islice(Functions(rows, seed=3), 30)]
    part = [int(canvas[0]) for canvas, _ in islice(Functions(rows, seed=3, first=first), 12)]
    assert part == whole[first : first + 12]


def test_a_run_goes_on_from_a_folder_and_remembers_what_was_seen(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    pretrain_base(tmp_path, corpus, steps=2, cooldown=2, start=trained, batch_size=4)
    runs = json.loads((tmp_path / HISTORY).read_text())
    assert [run["curve"][-1]["examples"] for run in runs] == [24, 24 + 8]
    assert [run["cooldown"] for run in runs] == [0, 2]
    assert History.of(tmp_path).examples == 32
    dlmjoint.load_base(tmp_path)


def test_the_card_names_what_the_weights_were_made_of(trained: Path) -> None:
    card = (trained / "README.md").read_text()
    assert "| adder | 1.0 | MIT | train | 64 |" in card
    assert "24 canvases of 48 tokens, from those of 64 functions" in card
    assert json.loads((trained / "provenance.json").read_text())["settings"]["steps"] == 3


def test_weights_stored_in_bfloat16_are_the_same_run_rounded(
    trained: Path, corpus: Path, tmp_path: Path
) -> None:
    pretrain_base(tmp_path, corpus, steps=3, stored="bfloat16", **SMALL)
    rounded, whole = dlmjoint.load_base(tmp_path), dlmjoint.load_base(trained)
    for ours, theirs in zip(rounded.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs.bfloat16().float())
    assert (tmp_path / "model.safetensors").stat().st_size < 0.7 * (
        trained / "model.safetensors"
    ).stat().st_size
