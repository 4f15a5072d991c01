"""The benchmark's own laws, on models of a few thousand weights."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from dlmjoint.bench.command import bench
from dlmjoint.bench.full_size import DECODERS, FORWARD, PASS, FullSize, described, lengths_held
from dlmjoint.bench.gpu import OnGPU
from dlmjoint.bench.measure import Measured, measure, restart_host_peak, within_memory
from dlmjoint.bench.stand_ins import base as random_base
from dlmjoint.bench.stand_ins.base import config_of, published_names, write_random_base
from dlmjoint.bench.suite import TINY, Setting, Suite, find_suite
from dlmjoint.bench.table import lines_of, table_of
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
    "sdar-4b": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 60,
        "mask_token_id": 59,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "max_position_embeddings": 64,
    },
}
every_base = pytest.mark.parametrize("name", sorted(SMALL))


def _folder(name: str, folder: Path, **settings) -> Path:
    values = config_of(name) | SMALL[name]
    write_random_base(folder, values, torch.float32, **settings)
    return folder


def _written(name: str, commits: int) -> int:
    """Tokens that two forwards write into eleven columns behind one: SDAR's stay in their block."""
    blocks, total = [3, 4, 4] if name.startswith("sdar") else [11], 0
    for _ in range(2):
        count = min(commits, blocks[0])
        total, blocks = total + count, [blocks[0] - count, *blocks[1:]]
        blocks = blocks if blocks[0] else blocks[1:]
    return total


def _setting(folder: Path, workdir: Path) -> Setting:
    return Setting([str(folder)], [1, 2], [12], 2, 2, "cpu", "float32", workdir)


def test_all_published_sizes_are_in_the_package() -> None:
    assert published_names() == ["dream-7b", "llada-8b", "sdar-1.7b", "sdar-4b", "sdar-8b"]
    with pytest.raises(ConfigError, match="none of the published bases"):
        config_of("gpt-2")


@every_base
def test_the_files_hold_exactly_the_published_names_and_shapes_and_load(
    name: str, tmp_path: Path
) -> None:
    folder = _folder(name, tmp_path, shard_bytes=20_000)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    written = {}
    for shard in shards:
        with safe_open(shard, "pt") as file:
            written |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    base = load_base(folder)
    assert written == find_family(base.model_type).shapes(base.config)
    _, logits = base.score(torch.tensor([[1, 59, 59, 5]]))
    assert bool(logits.isfinite().all())
    assert float(logits.std()) > 0.01


@every_base
def test_the_suite_measures_loading_every_point_and_a_training_step(
    name: str, tmp_path: Path
) -> None:
    folder = _folder(name, tmp_path / "base")
    records = list(FullSize().run(_setting(folder, tmp_path), lambda text: None))
    assert [r["point"] for r in records] == ["load", "decode", "decode", "fit", "fit"]
    assert json.loads(json.dumps(records)) == records
    assert records[0]["bytes"] == 4 * sum(p.numel() for p in load_base(folder).network.parameters())
    for record, batch_size in zip(records[1:3], (1, 2), strict=True):
        measured = record["measured"]
        assert list(measured) == [*DECODERS, FORWARD, PASS]
        for decoder, (commits, _) in DECODERS.items():
            assert measured[decoder]["count"] == _written(name, commits) * batch_size
            assert measured[decoder]["peak_bytes"] is None
        assert "ratio" not in measured["exact"]
        assert measured["marginals-k4"]["ideal_ratio"]["median"] == 4
        assert measured["joint-k4"]["share_of_ideal"]["median"] > 0
        assert "ratio" not in measured[PASS]
    for record, batch_size in zip(records[3:], (1, 2), strict=True):
        assert record["batch_size"] == batch_size
        assert record["trained_parameters"] > 0
        assert record["measured"]["training step"]["seconds"]["low"] > 0
    assert not (tmp_path / "trajectories").exists()


def test_the_gpu_suite_measures_everything_plain_and_compiled_and_stops_when_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    folder, said = _folder("dream-7b", tmp_path / "base"), []
    setting = replace(_setting(folder, tmp_path), batch_sizes=[2], repeats=1)
    point, training = OnGPU().run(setting, said.append)
    assert json.loads(json.dumps(point)) == point
    assert training["measured"]["training step"]["seconds"]["low"] > 0
    measured = point["measured"]
    for name in ("exact", "marginals K=4", "joint K=4", "joint K=8"):
        assert measured[name]["count"] == measured[f"{name}, compiled"]["count"] > 0
        assert measured[name]["waits"] <= 2  # one per forward, and the noise once
    for suffix in ("", ", compiled"):
        assert measured[FORWARD + suffix]["seconds"]["low"] > 0
        assert measured[f"joint K=4{suffix}"]["share_of_ideal"]["median"] > 0
    assert lines_of([point, training])
    (left,) = OnGPU().run(replace(setting, minutes=0), said.append)
    assert left["point"] == "left out"
    assert "time is up" in said[-1]
    assert not lines_of([left])


def test_a_length_beyond_the_base_is_cut_and_said_so(tmp_path: Path) -> None:
    assert lengths_held([16, 128, 512], 64) == {16: [16], 64: [128, 512]}
    folder, said = _folder("dream-7b", tmp_path / "base"), []
    setting = Setting([str(folder)], [1], [128, 512], 1, 1, "cpu", "float32", tmp_path)
    decoded = [r for r in FullSize().run(setting, said.append) if r["point"] == "decode"]
    assert [record["length"] for record in decoded] == [64]
    assert "base: length [128, 512] cut to 64, all it holds" in said
    assert lines_of(decoded)[0][2] == "64 (asked 128, 512)"


def test_ratios_are_taken_within_a_repeat() -> None:
    one, two = Measured([1.0, 4.0], 8, None), Measured([2.0, 2.0], 4, None)
    assert one.ratios(two) == [4.0, 1.0]
    assert one.to_json("tokens")["per_second"] == {"median": 5.0, "low": 2.0, "high": 8.0}


def test_the_ideal_is_one_forward_and_k_minus_1_passes_for_k_tokens() -> None:
    found = {
        "exact": Measured([1.0], 10, None),
        "joint-k4": Measured([2.0], 40, None),
        "joint-k8": None,
        FORWARD: Measured([0.3], 1, None),
        PASS: Measured([0.1], 1, None),
    }
    told = described(found)
    assert told["joint-k4"]["ratio"]["median"] == 2
    assert told["joint-k4"]["ideal_ratio"]["median"] == pytest.approx(2)  # 4 / (1 + 3 / 3)
    assert told["joint-k4"]["share_of_ideal"]["median"] == pytest.approx(1)
    assert told["joint-k8"] == {"out_of_memory": True}
    without = described(found | {"exact": None})
    assert "ratio" not in without["joint-k4"]


def test_the_memory_told_of_full_size_is_the_devices_peak() -> None:
    found = dict.fromkeys([*DECODERS, FORWARD, PASS], Measured([1.0], 10, 5_000, extra_bytes=2_000))
    record = {"model": "base", "point": "decode", "measured": described(found)}
    assert [line[-1] for line in lines_of([record])] == ["5 kB"] * len(found)


def test_everything_is_done_once_unmeasured_and_then_in_turn() -> None:
    done: list[str] = []
    things = {name: (lambda n=name: done.append(n) or 1) for name in ("a", "b")}
    found = measure(things, 2, torch.device("cpu"))
    assert done == ["a", "b", "a", "b", "a", "b"]
    assert [len(one.seconds) for one in found.values() if one is not None] == [2, 2]


def test_what_the_device_does_not_hold_is_said_and_the_rest_is_measured() -> None:
    def too_large() -> int:
        raise torch.cuda.OutOfMemoryError

    found = measure({"large": too_large, "small": lambda: 3}, 2, torch.device("cpu"))
    assert found["large"] is None
    assert found["small"] is not None
    assert found["small"].count == 3


def test_only_a_full_device_is_forgiven() -> None:
    def broken() -> int:
        raise RuntimeError("not about memory")

    with pytest.raises(RuntimeError, match="not about memory"):
        within_memory(broken)


def test_the_host_peak_forgets_what_was_before() -> None:
    block = torch.ones(50_000_000)
    before = restart_host_peak()
    del block
    after = restart_host_peak()
    if before is None or after is None:
        pytest.skip("this system does not let a process restart its peak")
    assert before - after > 100_000_000


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
            "full-size", models=[str(folder)], batch_sizes=[1], lengths=[12], forwards=1,
            repeats=1, device="cpu", output=output,
        )  # fmt: skip
    assert "not full size" in " ".join(capsys.readouterr().out.split())
    found = json.loads(output.read_text())
    assert [record["point"] for record in found["records"]] == ["load", "decode"]
    assert found["provenance"]["hardware"]
    assert found["provenance"]["settings"]["lengths"] == "[12]"
    assert table_of(found["records"]).row_count == 1 + len(DECODERS) + 2


def test_the_table_says_what_did_not_fit() -> None:
    where = {"model": "m", "batch_size": 16, "length": 512, "point": "decode"}
    lines = lines_of([
        {"model": "m", "point": "load", "out_of_memory": True},
        where | {"measured": {"exact": {"out_of_memory": True}}},
    ])  # fmt: skip
    assert [line[3:5] for line in lines] == [["load", "out of memory"], ["exact", "out of memory"]]


def test_what_lies_in_the_workdir_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "dream-7b" / "config.json"
    kept.parent.mkdir()
    kept.write_text("mine")
    small = config_of("dream-7b") | SMALL["dream-7b"]
    monkeypatch.setattr("dlmjoint.bench.stand_ins.base.config_of", lambda name: small)
    bench(
        "full-size", models=["dream-7b"], batch_sizes=[1], lengths=[8], forwards=1, repeats=1,
        device="cpu", workdir=tmp_path,
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["dream-7b"]
    assert kept.read_text() == "mine"


def test_weights_larger_than_the_disk_are_refused_before_any_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_base.shutil, "disk_usage", lambda folder: _Disk(free=1_000))
    with pytest.raises(ConfigError, match=r"need 15\.2 GB"):
        write_random_base(tmp_path, config_of("dream-7b"), torch.bfloat16)
    assert not list(tmp_path.iterdir())


@dataclass
class _Disk:
    free: int


def test_an_unknown_suite_or_model_or_a_senseless_number_is_one_clear_error(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"no suite 'speed'; known: \['all', .*'full-size'"):
        find_suite("speed")
    with pytest.raises(ConfigError, match="no model 'dream-9b'"):
        bench(device="cpu", models=["dream-9b"])
    with pytest.raises(ConfigError, match="repeats is"):
        bench(device="cpu", repeats=0)
    with pytest.raises(ConfigError, match="lengths is"):
        bench(device="cpu", lengths=[])
    with pytest.raises(ConfigError, match="is no folder"):
        bench(device="cpu", workdir=tmp_path / "nowhere")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        bench(device="cuda")


def test_a_bench_that_is_asked_to_end_leaves_no_weights_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(Suite):
        name = "endless"

        def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
            (setting.workdir / "weights").touch()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
            yield {}

    monkeypatch.setattr("dlmjoint.bench.command.find_suite", lambda name: Endless())
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what this process does by itself
    try:
        with pytest.raises(SystemExit) as ended:
            bench("endless", models=[TINY], workdir=tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())
