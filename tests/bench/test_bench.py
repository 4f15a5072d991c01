"""The benchmark's own laws, on models of a few thousand weights."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch

from dlmjoint.bench.command import bench, table_of
from dlmjoint.bench.full_size import DECODERS, FullSize
from dlmjoint.bench.measure import Measured, measure
from dlmjoint.bench.random_base import published_config, published_names, write_random_base
from dlmjoint.bench.suite import Setting, find_suite
from dlmjoint.errors import ConfigError
from dlmjoint.models.load import find_family, load_base

SMALL = {
    "dream-7b": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 60,
        "mask_token_id": 59,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "max_position_embeddings": 64,
    },
    "llada-8b": {
        "d_model": 32,
        "mlp_hidden_size": 64,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 4,
        "vocab_size": 60,
        "embedding_size": 60,
        "mask_token_id": 59,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "max_sequence_length": 64,
    },
}
every_base = pytest.mark.parametrize("name", sorted(SMALL))


def _folder(name: str, folder: Path, **settings) -> Path:
    values = published_config(name) | SMALL[name]
    write_random_base(folder, values, torch.float32, **settings)
    return folder


def _setting(folder: Path, workdir: Path) -> Setting:
    return Setting([str(folder)], [1, 2], [12], 2, 2, "cpu", "float32", workdir)


def test_both_published_sizes_are_in_the_package() -> None:
    assert published_names() == ["dream-7b", "llada-8b"]
    with pytest.raises(ConfigError, match="none of the published bases"):
        published_config("gpt-2")


@every_base
def test_random_weights_have_the_published_names_and_load_as_published(
    name: str, tmp_path: Path
) -> None:
    folder = _folder(name, tmp_path, shard_bytes=20_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    base = load_base(folder)
    family = find_family(base.model_type)
    assert {family.published(n) for n, _ in base.network.named_parameters()} == set(
        family.shapes(base.config)
    )
    _, logits = base.score(torch.tensor([[1, 59, 59, 5]]))
    assert bool(logits.isfinite().all())
    assert float(logits.std()) > 0.01


@every_base
def test_the_suite_measures_loading_every_point_and_a_training_step(
    name: str, tmp_path: Path
) -> None:
    folder = _folder(name, tmp_path / "base")
    records = list(FullSize().run(_setting(folder, tmp_path), lambda text: None))
    assert [record["point"] for record in records] == ["load", "decode", "decode", "fit"]
    assert records[0]["bytes"] == 4 * sum(p.numel() for p in load_base(folder).network.parameters())
    for record, batch_size in zip(records[1:3], (1, 2), strict=True):
        measured = record["measured"]
        for decoder, (commits, _) in DECODERS.items():
            assert measured[decoder]["count"] == min(2 * commits, 11) * batch_size
        assert measured["exact"]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
        assert "ratio" not in measured["sampler pass"]
    assert records[3]["trained_parameters"] > 0
    assert not list(tmp_path.glob("trajectories-*"))


def test_ratios_are_taken_within_a_repeat() -> None:
    one, two = Measured([1.0, 4.0], 8, None), Measured([2.0, 2.0], 4, None)
    assert one.to_json(two)["ratio"] == {"median": 2.5, "low": 1.0, "high": 4.0}
    assert one.to_json()["per_second"] == {"median": 5.0, "low": 2.0, "high": 8.0}


def test_everything_is_done_once_unmeasured_and_then_in_turn() -> None:
    done: list[str] = []
    things = {name: (lambda n=name: done.append(n) or 1) for name in ("a", "b")}
    found = measure(things, 2, torch.device("cpu"))
    assert done == ["a", "b", "a", "b", "a", "b"]
    assert [len(one.seconds) for one in found.values()] == [2, 2]


def test_the_command_writes_after_every_point_and_says_that_a_cpu_is_not_full_size(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _folder("dream-7b", tmp_path / "base")
    output = tmp_path / "found.json"
    whole = FullSize.run

    def killed(self, setting, note):
        yield from islice(whole(self, setting, note), 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(FullSize, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        bench(
            models=[str(folder)], batch_sizes=[1], lengths=[12], forwards=1, repeats=1,
            device="cpu", output=output,
        )  # fmt: skip
    assert "not full size" in capsys.readouterr().out
    found = json.loads(output.read_text())
    assert [record["point"] for record in found["records"]] == ["load", "decode"]
    assert found["provenance"]["hardware"]
    assert table_of(found["records"]).row_count == 1 + len(DECODERS) + 2


def test_what_does_not_fit_is_said_and_the_rest_goes_on() -> None:
    record = {
        "model": "m",
        "point": "decode",
        "batch_size": 16,
        "length": 512,
        "out_of_memory": True,
    }
    assert table_of([record]).row_count == 1


def test_an_unknown_suite_or_a_senseless_number_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"no suite 'speed'; known: \['full-size'\]"):
        find_suite("speed")
    with pytest.raises(ConfigError, match="repeats is"):
        bench(device="cpu", repeats=0)
