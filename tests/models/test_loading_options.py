"""Other ways into memory: device maps, attention kernels, quantised and bfloat16 bases."""

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml

import dlmjoint
from dlmjoint import cli
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.running.sharding import place_base
from dlmjoint.distill.unrolling.unroll import UnrollBatch, collate
from dlmjoint.errors import ConfigError, LoadError
from dlmjoint.evaluation.running import settings
from dlmjoint.evaluation.scoring import score
from dlmjoint.models.dream import DreamConfig, DreamNetwork
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import Loading, load_base
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.types import Trajectory
from tests.conftest import GOLDEN


def _rows(base: TransformerBase) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of ids, the second padded on the left by three."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, base.vocab_size, (2, 12), generator=generator)
    mask = torch.ones_like(tokens)
    mask[1, :3] = 0
    return tokens, mask


def _logits(base: TransformerBase) -> torch.Tensor:
    tokens, mask = _rows(base)
    return base.score(tokens, mask)[1][mask.bool()].float()


every_family = pytest.mark.parametrize("family", ["dream", "llada"])


@every_family
def test_a_base_placed_module_by_module_computes_the_same(family: str) -> None:
    whole = load_base(GOLDEN / family)
    modules = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    modules += [f"model.layers.{n}" for n in range(len(whole.network.model.layers))]
    placed = load_base(GOLDEN / family, loading=Loading(dict.fromkeys(modules, "cpu")))
    assert torch.equal(_logits(placed), _logits(whole))


def test_weights_on_disk_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"disk.*bits"):
        Loading({"model": "cpu", "lm_head": "disk"})


@every_family
@torch.no_grad()
def test_the_eager_kernel_computes_what_sdpa_does_padded_and_in_a_window(family: str) -> None:
    bases = [load_base(GOLDEN / family, loading=Loading(attention=a)) for a in ("sdpa", "eager")]
    torch.testing.assert_close(_logits(bases[1]), _logits(bases[0]), atol=1e-5, rtol=0)
    found = []
    for base in bases:
        canvas, memory = base.canvas([[1, 2, 3, 4], [1, 2]], 8), CanvasMemory()
        base.predict(canvas, None, memory)
        canvas.tokens[:, 7] = 5
        cells = torch.zeros_like(canvas.attends)
        cells[:, 6:9] = True
        found.append(base.predict(canvas, cells, memory).hidden[canvas.attends])
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is not None, reason="flash_attn is installed"
)
def test_a_kernel_that_is_not_installed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot be loaded like this.*FlashAttention2"):
        load_base(GOLDEN / "dream", loading=Loading(attention="flash_attention_2"))


def test_bits_without_bitsandbytes_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"bits=8 needs .* pip install bitsandbytes"):
        Loading(bits=8)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Dream whose widths are multiples of 64, as 4 bits on a CPU ask for."""
    pytest.importorskip("bitsandbytes", reason="bits need the optional extra `quant`")
    folder = tmp_path_factory.mktemp("blocks")
    config = DreamConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        initializer_range=0.1,
        mask_token_id=95,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DreamNetwork(config).save_pretrained(folder)
    return str(folder)


def _quantised(folder: str, bits: int) -> TransformerBase:
    return load_base(folder, loading=Loading(bits=bits))  # pyright: ignore[reportArgumentType]


every_width = pytest.mark.parametrize("bits", [8, 4])


@every_width
def test_a_quantised_base_says_nearly_the_same(blocks: str, bits: int) -> None:
    base, full = _quantised(blocks, bits), load_base(blocks)
    pair = torch.stack([_logits(base).flatten(), _logits(full).flatten()])
    assert torch.corrcoef(pair)[0, 1] > {8: 0.999, 4: 0.95}[bits]
    assert base.fingerprint == full.fingerprint
    assert (base.bits, full.bits) == (bits, None)


@every_width
def test_embedding_head_and_norms_are_not_quantised(blocks: str, bits: int) -> None:
    small = {
        name.rsplit(".", 2)[-2]
        for name, weight in _quantised(blocks, bits).network.named_parameters()
        if weight.dtype != torch.float32
    }
    assert small == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@every_width
def test_a_sampler_over_a_quantised_base_starts_from_full_precision(blocks: str, bits: int) -> None:
    sampler = JointSampler.from_base(_quantised(blocks, bits))
    expected = JointSampler.from_base(load_base(blocks))
    for name, weight in expected.state_dict().items():
        assert torch.equal(sampler.state_dict()[name], weight)
    assert "quantization_config" not in sampler.config.base_config
    sampler.check(load_base(blocks))


def test_a_sampler_over_a_quantised_base_whose_files_are_gone_is_refused(
    tmp_path: Path, blocks: str
) -> None:
    base = _quantised(blocks, 8)
    base.name = str(tmp_path / "gone")
    with pytest.raises(LoadError, match="gone is neither a folder nor"):
        JointSampler.from_base(base)


def _batch(base: TransformerBase) -> UnrollBatch:
    ids = torch.arange(2, 8)
    trajectory = Trajectory(0, torch.tensor([1, 5]), ids, torch.randperm(6), torch.zeros(6))
    return collate([trajectory], [1], 3, base.mask_id, base.pad_id)


def _step(module: Distillation) -> set[str]:
    """The names of all weights that one step of training changes, the base's behind `base.`."""
    base = module.base.network
    before = {name: weight.clone() for name, weight in module.sampler.state_dict().items()}
    frozen = {name: weight.clone() for name, weight in base.named_parameters()}
    optimizer = module.configure_optimizers()
    loss = module.losses(_batch(module.base))[1].mean()
    loss.backward()
    optimizer.step()
    now = module.sampler.state_dict()
    changed = {name for name in before if not torch.equal(now[name], before[name])}
    return changed | {
        f"base.{name}"
        for name, weight in base.named_parameters()
        if weight.grad is not None or not torch.equal(weight, frozen[name])
    }


@every_width
def test_a_step_over_a_quantised_base_trains_the_layer_only(blocks: str, bits: int) -> None:
    loading = Loading(bits=bits)  # pyright: ignore[reportArgumentType]
    module = Distillation(blocks, depth=2, loading=loading)
    _logits(module.base)  # the first forward on a CPU packs 4-bit weights anew
    assert _step(module) == set(module.sampler.state_dict())


def test_a_base_that_must_not_move_stays_where_it_was_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loading = Loading(device_map="cpu")
    module = Distillation(str(GOLDEN / "dream"), depth=1, loading=loading)
    monkeypatch.setattr(torch.nn.Module, "to", lambda *_: pytest.fail("the base was moved"))
    place_base(module.base, module.loading, False, module.device)
    with pytest.raises(ConfigError, match=r'lies on cpu.*device_map as "cuda:1"'):
        place_base(module.base, module.loading, False, torch.device("cuda", 1))


def test_bits_are_part_of_what_a_run_depends_on(
    tmp_path: Path, blocks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, base = load_base(blocks), _quantised(blocks, 8)
    made = [settings.settings_of(b, {}, {}, [], 0, 1) for b in (full, base)]
    with pytest.raises(ConfigError, match=r"base\.bits: None there, 8 now"):
        settings.merge(made[0], made[1], tmp_path)
    asked: list[Loading | None] = []
    monkeypatch.setattr(
        score, "load_any_base", lambda *arguments: asked.append(arguments[4]) or base
    )
    assert score._Scorer(tmp_path, made[1], [], None, None, "cpu").base() is base
    assert asked == [Loading(bits=8)]


@pytest.mark.parametrize("verb", ["generate", "fit", "eval"])
def test_the_commands_take_loading_as_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    (tmp_path / "c.yaml").write_text(REQUIRED[verb])
    section = "--model.loading" if verb == "fit" else "--loading"
    flags = [f"{section}.attention", "eager", f"{section}.device_map", "auto"]
    flags += [f"{section}.compile", "true"]
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--config", str(tmp_path / "c.yaml"), *flags, "--print_config"])
    assert ended.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    found = (shown["model"] if verb == "fit" else shown)["loading"]
    expected = {"device_map": "auto", "bits": None, "attention": "eager", "compile": True}
    assert found == expected


REQUIRED = {
    "generate": """
base: b
output: o
prompts: {class_path: dlmjoint.trajectories.prompts.Unconditional, init_args: {n: 1}}
""",
    "fit": "{model: {base: b}, data: {path: d}}",
    "eval": "{base: b, run_dir: r, decoders: {exact: {}}, tasks: []}",
}


@every_family
@torch.no_grad()
def test_a_bfloat16_base_decodes_with_a_float32_layer(family: str) -> None:
    base = load_base(GOLDEN / family, dtype="bfloat16")
    sampler = JointSampler.from_base(base, gain=1.0).eval()
    canvas = base.canvas([[1, 2, 3], [4]], 8)
    hidden = base.predict(canvas).hidden
    updated = sampler(base.embed(canvas.tokens), hidden, canvas.positions, canvas.attends)
    assert (hidden.dtype, updated.dtype) == (torch.bfloat16, torch.float32)
    assert base.unembed(updated).dtype == torch.bfloat16
    out = dlmjoint.generate(base, [[1, 2, 3], [4]], Policy(4, refine=Joint(sampler)), 8)
    assert (out.base_forwards, out.sampler_passes) == (4, 12)
    assert all(base.mask_id not in row for row in out.sequences)


@every_family
def test_a_bfloat16_base_trains_a_float32_layer(family: str) -> None:
    module = Distillation(str(GOLDEN / family), dtype="bfloat16", depth=2)
    assert _step(module) == set(module.sampler.state_dict())
    assert {weight.dtype for weight in module.sampler.parameters()} == {torch.float32}
