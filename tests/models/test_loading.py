"""Loading at size, and from damaged folders: how much memory it takes, what it refuses."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import dlmjoint
from dlmjoint import cli
from dlmjoint.errors import ConfigError, LoadError
from dlmjoint.models.dream import DreamConfig, DreamNetwork
from dlmjoint.models.files import INDEX, ModelFiles
from dlmjoint.models.load import check, load_base
from tests.conftest import GOLDEN

MEGABYTE = 2**20
MEASURE = """
import gc, sys, torch
from dlmjoint.models.load import load_base

def held(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

torch.set_num_threads(1)
small, folder, dtype = sys.argv[1:]
load_base(small)  # what is imported at the first loading is no part of the second
gc.collect()
before = held("VmRSS")
base = load_base(folder, dtype=dtype)
base.score(torch.tensor([[1, 2, 3]]))
own = sum(weight.nbytes for weight in base.network.parameters())
print(own, held("VmHWM") - before)
"""
"""Prints the bytes of a base's weights and by how much the process grew at most."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dream of 54 million weights in bfloat16, four shards of at most 32 MB."""
    folder = tmp_path_factory.mktemp("large")
    config = DreamConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=64,
        mask_token_id=39,
        eos_token_id=0,
        pad_token_id=0,
    )
    network = DreamNetwork(config).to(torch.bfloat16)
    network.save_pretrained(folder, max_shard_size="32MB")
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_loading_takes_the_models_own_memory_and_less_than_a_shard_and_a_third(
    large: Path, dtype: str
) -> None:
    """Measured is VmHWM, the most memory that was ever resident in a process of its own, less what
    was resident before the loading (after imports and a first small base). Resident memory counts
    everything: the heap, and the pages of a file that is memory-mapped. The bound is on growth to
    the end of a first forward, when all weights have been touched. transformers' own loading maps
    every shard until the last weight is there: it meets the bound in bfloat16, where the mapped
    pages are the weights, and in float32 grows by 310 MB instead of 224 MB.
    """
    shards = [path.stat().st_size for path in large.glob("*.safetensors")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(GOLDEN / "dream"), str(large), dtype],
        capture_output=True,
        text=True,
        check=True,
    )
    own, grown = map(int, done.stdout.split()[-2:])
    assert len(shards) >= 4
    assert own > 100 * MEGABYTE
    assert own < grown < own + 1.3 * max(shards)


def test_weights_of_many_shards_are_those_of_one_file(tmp_path: Path) -> None:
    loaded = load_base(_sharded(tmp_path))
    whole = load_base(GOLDEN / "dream")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    for name, weight in whole.network.named_parameters():
        assert torch.equal(loaded.network.get_parameter(name), weight)


def _sharded(folder: Path) -> Path:
    """The golden Dream in shards of 150 kB."""
    load_base(GOLDEN / "dream").network.save_pretrained(folder, max_shard_size="150KB")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(GOLDEN / "dream" / name, folder)
    return folder


def _first_shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


def _edit(path: Path, change: Callable[[dict], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def _cut_a_shard(folder: Path) -> None:
    shard = _first_shard(folder)
    shard.write_bytes(shard.read_bytes()[:-100])


def _lose_a_shard(folder: Path) -> None:
    _first_shard(folder).unlink()


def _promise_a_weight(folder: Path) -> None:
    shard = _first_shard(folder).name
    _edit(folder / INDEX, lambda index: index["weight_map"].update({"model.extra.weight": shard}))


def _quantise_the_files(folder: Path) -> None:
    for shard in folder.glob("*.safetensors"):
        weights = {name: weight.to(torch.int8) for name, weight in load_file(shard).items()}
        save_file(weights, shard, {"format": "pt"})


def _lose_the_merges(folder: Path) -> None:
    (folder / "merges.txt").unlink()


def _config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / "config.json", lambda config: config.update(changes))


def _spoil_a_weight(folder: Path) -> None:
    shard = _first_shard(folder)
    weights = load_file(shard)
    weights[min(weights)].view(-1)[-1] = float("nan")
    save_file(weights, shard, {"format": "pt"})


DAMAGE: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "a cut-off shard": (_cut_a_shard, LoadError, r"00001-of-\d+\.safetensors is cut off.*fetch it"),
    "a missing shard": (_lose_a_shard, LoadError, r"00001-of-\d+\.safetensors are missing.*fetch"),
    "an index of too much": (_promise_a_weight, LoadError, r"model\.extra\.weight.*fetch"),
    "integer weights": (_quantise_the_files, LoadError, r"type \['I8'\].*unquantised"),
    "half a tokenizer": (_lose_the_merges, LoadError, r"tokenizer lacks merges\.txt; fetch"),
    "an unknown family": (_config(model_type="gpt2"), ConfigError, r"'gpt2'.*known: .*Dream.*Load"),
    "another mask": (_config(mask_token_id=7), LoadError, r"mask is id 7.* 510.*fetch"),
    "a tied head": (_config(tie_word_embeddings=True), LoadError, r"lm_head\.weight.*config\.json"),
    "no number": (_spoil_a_weight, LoadError, r"not finite.*fetch"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_line_that_says_what_to_do(
    tmp_path: Path, kind: str
) -> None:
    damage, error, message = DAMAGE[kind]
    damage(_sharded(tmp_path))
    with pytest.raises(error, match=message) as refused:
        load_base(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["a cut-off shard", "half a tokenizer"])
def test_a_command_on_a_damaged_folder_ends_in_that_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    damage, _, message = DAMAGE[kind]
    damage(_sharded(tmp_path / "base"))
    prompts = ["--prompts", "dlmjoint.trajectories.prompts.Unconditional", "--prompts.n", "1"]
    arguments = ["--base", str(tmp_path / "base"), "--output", str(tmp_path / "out"), *prompts]
    with pytest.raises(SystemExit) as ended:
        cli.main(["generate", "--device", "cpu", *arguments])
    assert ended.value.code == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert re.search(f"^dlmjoint: error: .*{tmp_path}.*{message}", line)


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "float31"])
def test_a_base_is_loaded_as_nothing_but_a_common_float(dtype: str) -> None:
    with pytest.raises(ConfigError, match=f"'{dtype}'.*bfloat16"):
        load_base(GOLDEN / "dream", dtype=dtype)


def test_a_folder_without_a_tokenizer_gives_a_base_of_ids(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / "dream" / name, tmp_path)
    base = load_base(tmp_path)
    assert "has no tokenizer files" in caplog.text
    assert len(dlmjoint.generate(base, [[1, 2]], max_new_tokens=3).sequences[0]) == 2 + 3
    with pytest.raises(ConfigError, match="has no tokenizer"):
        base.encode("a")


def test_a_spoiled_rotary_table_is_refused() -> None:
    base = load_base(GOLDEN / "dream")
    base.network.model.rotary_emb.inv_freq[3] += 1e-3
    with pytest.raises(LoadError, match=r"rotary table differs from its formula by up to 0\.001"):
        check(base, torch.float32)


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_a_weight_that_is_no_number_is_refused_wherever_it_is(number: float) -> None:
    base = load_base(GOLDEN / "dream")
    base.network.model.layers[1].mlp.up_proj.weight[150, 60] = number
    with pytest.raises(LoadError, match=r"layers\.1\.mlp\.up_proj\.weight.*not finite"):
        check(base, torch.float32)


def test_a_tied_head_against_the_config_is_refused() -> None:
    base = load_base(GOLDEN / "dream")
    base.network.lm_head.weight = base.network.model.embed_tokens.weight
    with pytest.raises(LoadError, match="the head is tied, against its config"):
        check(base, torch.float32)


def test_a_weight_that_found_no_room_is_refused() -> None:
    base = load_base(GOLDEN / "dream")
    base.network.lm_head.to("meta")
    with pytest.raises(LoadError, match=r"no room for lm_head\.weight.*bits"):
        check(base, torch.float32)


def test_only_the_rows_asked_for_are_read() -> None:
    files = ModelFiles.find(str(GOLDEN / "dream"))
    names = ["lm_head.weight", "model.norm.weight"]
    rows = files.read(names, 100)
    assert [tuple(part.shape) for part in rows] == [(100, 64), (64,)]
    assert torch.equal(rows[0], files.read(names)[0][:100])
    with pytest.raises(LoadError, match=r"no weight lm_foot\.weight"):
        files.read(["lm_foot.weight"])
