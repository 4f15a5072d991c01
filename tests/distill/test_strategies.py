"""Strategies change where weights lie, not what is learned: losses, checkpoints, exports."""

import importlib.util
import json
import math
import shutil
from pathlib import Path

import lightning as L
import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from safetensors.torch import load_file

from dlmjoint.distill.fit_data import FitData
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.on_policy import OnPolicy
from dlmjoint.distill.online import OnlineData
from dlmjoint.distill.optim import MuonAdamW
from dlmjoint.distill.unrolling.unroll import UnrollBatch, collate
from dlmjoint.errors import ConfigError
from dlmjoint.models.load import Loading
from dlmjoint.training import TRAINING, TrainCLI
from dlmjoint.trajectories.prompts import Unconditional
from dlmjoint.trajectories.store import TrajectoryStore
from tests.distill.processes import finish, start
from tests.distill.strategies import BASE, RECIPES, STEPS, deepspeed, draw, fit, two_processes

ROOT = Path(__file__).parent.parent.parent
CONFIGS = sorted((ROOT / "configs" / "fit" / "strategy").glob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty exact trajectories of the golden base."""
    output = tmp_path_factory.mktemp("trajectories")
    draw(output)
    return output


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes with half of every batch each leave behind."""
    root = tmp_path_factory.mktemp("pair")
    assert finish(start(2, two_processes, root)) == [0, 0]
    return root


@pytest.fixture(scope="module")
def found(pair: Path) -> dict[str, dict]:
    """Their losses."""
    return json.loads((pair / "found.json").read_text())


def test_two_processes_draw_the_trajectories_of_one(pair: Path, folder: Path) -> None:
    names = sorted(path.name for path in folder.glob("*.parquet"))
    assert names == sorted(path.name for path in (pair / "trajectories").glob("*.parquet"))
    for name in names:
        assert (folder / name).read_bytes() == (pair / "trajectories" / name).read_bytes()


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_have_the_losses_of_one(
    tmp_path: Path, folder: Path, found: dict[str, dict], recipe: str
) -> None:
    alone = fit(tmp_path, folder, recipe)
    assert all(math.isfinite(alone[f"val/kl@{depth}"]) for depth in (1, 2, 3))
    assert len(set(alone["losses"])) == STEPS
    assert found[recipe] == {
        key: pytest.approx(value, abs=1e-5, rel=1e-5) for key, value in alone.items()
    }


@pytest.mark.parametrize("recipe", ["default", "own_windows", "muon"])
def test_a_layer_and_a_base_in_shards_have_the_losses_of_whole_ones(
    found: dict[str, dict], recipe: str
) -> None:
    # torch's Muon orthogonalises in bfloat16, in shards in another order: over four sets of trajectories
    # its losses came out up to 1.4e-5 apart.
    most = 5e-5 if recipe == "muon" else 1e-5
    assert found[f"sharded_{recipe}"] == {
        key: pytest.approx(value, abs=most, rel=1e-5) for key, value in found[recipe].items()
    }


def test_a_base_in_shards_under_a_layer_in_every_process_changes_nothing(
    found: dict[str, dict], pair: Path
) -> None:
    assert found["ddp_base"] == found["default"]
    assert _exported(pair / "ddp_base") == _exported(pair / "default")


def _exported(root: Path) -> bytes:
    return (root / "sampler" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["default", "muon", "shards"])
def test_a_sharded_fit_resumes_exactly(found: dict[str, dict], pair: Path, name: str) -> None:
    before = name if name == "shards" else f"sharded_{name}"
    assert found[f"resumed_{name}"]["losses"] == found[before]["losses"][3:]
    assert _exported(pair / f"resumed_{name}") == _exported(pair / before)


def test_the_export_of_a_sharded_fit_is_the_whole_layer(pair: Path) -> None:
    whole, gathered = (
        load_file(pair / name / "sampler" / "model.safetensors")
        for name in ("default", "sharded_default")
    )
    assert whole.keys() == gathered.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(gathered[name], weight, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_a_sharded_fit_holds_the_layer_alone_and_goes_on_in_one_process(
    tmp_path: Path, folder: Path, found: dict[str, dict], pair: Path
) -> None:
    path = pair / "sharded_default" / "step=3.ckpt"
    state = torch.load(path, weights_only=False)["state_dict"]
    assert set(state) == {f"sampler.{n}" for n in Distillation(BASE).sampler.state_dict()}
    alone = fit(tmp_path, folder, "default", ckpt_path=path)
    assert alone["losses"] == pytest.approx(found["default"]["losses"][3:], abs=1e-5)


def test_a_checkpoint_of_whole_layers_goes_on_in_shards(found: dict[str, dict]) -> None:
    expected = found["default"]["losses"][3:]
    assert found["resumed_ddp"]["losses"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow  # DeepSpeed compiles its CPU backend the first time
@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None
    or shutil.which("ninja") is None
    or torch.cuda.is_available(),
    reason="deepspeed or what it compiles with is not installed, or it would take the GPU",
)
def test_deepspeed_learns_saves_and_exports_what_ddp_does(
    tmp_path: Path, folder: Path, found: dict[str, dict], pair: Path
) -> None:
    assert finish(start(2, deepspeed, tmp_path, folder)) == [0, 0]
    zero = json.loads((tmp_path / "found.json").read_text())
    whole = load_file(pair / "default" / "sampler" / "model.safetensors")
    for stage in (1, 2, 3):
        for recipe in ("default", "own_windows"):
            expected = {k: pytest.approx(v, abs=1e-5) for k, v in found[recipe].items()}
            assert zero[f"zero{stage}_{recipe}"] == expected
        losses = zero[f"zero{stage}_default"]["losses"]
        assert zero[f"resumed_zero{stage}"]["losses"] == losses[3:]
        for name in (f"zero{stage}_default", f"resumed_zero{stage}"):
            exported = load_file(tmp_path / name / "sampler" / "model.safetensors")
            assert exported.keys() == whole.keys()
            for key, weight in whole.items():
                torch.testing.assert_close(exported[key], weight, rtol=0, atol=1e-4)


def _batch(folder: Path, rows: range) -> UnrollBatch:
    store = TrajectoryStore.open(folder)
    some = store.trajectories()[rows.start : rows.stop]
    ids = (store.manifest.mask_id, store.manifest.pad_id)
    return collate(some, [0] * len(some), 4, *ids, 5, tuple(rows))


def test_processes_make_the_same_calls_whoever_writes_windows(folder: Path) -> None:
    module = Distillation(BASE, depth=3)
    calls: list[str] = []
    module.sampler.register_forward_hook(lambda *_: calls.append("pass"))
    block = module.base.network.model.layers[0]
    block.register_forward_hook(lambda *_: calls.append("forward"))
    made = []
    for row in range(8):
        calls.clear()
        batch = _batch(folder, range(row, row + 1))
        own = OnPolicy(rate=0.5).rewrite(batch, module.base, module.sampler, 0, in_step=True)
        made.append((torch.equal(own.states, batch.states), tuple(calls)))
    assert {kept for kept, _ in made} == {True, False}  # some write, some keep company
    assert {calls for _, calls in made} == {("forward", "pass", "pass")}
    calls.clear()
    OnPolicy(rate=0.0).rewrite(batch, module.base, module.sampler, 0, in_step=True)
    assert not calls


def test_a_base_is_not_spread_over_one_process(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is only this one"):
        fit(tmp_path, folder, "default", shard_base=True)


def test_a_base_with_a_place_of_its_own_is_not_spread() -> None:
    with pytest.raises(ConfigError, match="leave out device_map and bits"):
        Distillation(BASE, loading=Loading(device_map="cpu"), shard_base=True)


def test_a_spread_base_is_refused_with_data_that_runs_it(tmp_path: Path) -> None:
    data = OnlineData(Unconditional(12), 8, batch_size=4, window=4, val_examples=4)
    trainer = L.Trainer(accelerator="cpu", max_steps=1, logger=False, default_root_dir=tmp_path)
    with pytest.raises(ConfigError, match="this data runs the base by itself"):
        trainer.fit(Distillation(BASE, depth=2, shard_base=True), data)


def test_a_cast_of_the_layer_leaves_its_rotary_table_as_it_is() -> None:
    sampler = Distillation(BASE).sampler
    table = sampler.rotary.get_buffer("inv_freq").clone()
    sampler.bfloat16()
    assert sampler.project.weight.dtype == torch.bfloat16
    assert torch.equal(sampler.rotary.get_buffer("inv_freq"), table)
    sampler.to("meta")
    assert sampler.rotary.get_buffer("inv_freq").is_meta


def test_muon_refuses_weights_in_flat_shards() -> None:
    flat = [torch.nn.Parameter(torch.zeros(6))]
    with pytest.raises(ConfigError, match="flat shards"):
        MuonAdamW(flat)
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = MuonAdamW([weight])
    optimizer.param_groups[0]["params"] = flat  # as DeepSpeed does
    with pytest.raises(ConfigError, match=r"choose torch\.optim\.AdamW"):
        optimizer.step()


def _parsed(path: Path) -> Namespace:
    """The settings of a fit with a strategy added."""
    arguments = ["fit", "--config", str(ROOT / "configs/fit/demo.yaml"), "--config", str(path)]
    parsed: list[Namespace] = []

    class Parse(TrainCLI):
        def instantiate_classes(self) -> None:
            parsed.append(self.config["fit"])

        def _run_subcommand(self, subcommand: str) -> None:
            pass

    Parse("fit", Distillation, FitData, subclass_mode_data=True, args=arguments, **TRAINING)
    return parsed[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_strategy_is_added_to_a_fit_by_a_second_config(path: Path) -> None:
    settings = _parsed(path)
    assert settings["model"]["base"] == "checkpoints/tiny-dream"
    chosen = settings["trainer"]["strategy"]
    if isinstance(chosen, str):
        assert chosen == path.stem
        return
    name = chosen["class_path"].rsplit(".", 1)[1]
    kind = {k.__name__: k for k in (ModelParallelStrategy, FSDPStrategy, DeepSpeedStrategy)}[name]
    if kind is DeepSpeedStrategy and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    made = kind(**chosen["init_args"].as_dict())
    assert settings["model"]["shard_base"] == path.stem.endswith("-base")
    if isinstance(made, DeepSpeedStrategy):
        from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

        assert made.config is not None
        checked = DeepSpeedZeroConfig(**made.config["zero_optimization"])
        assert int(checked.stage) == int(path.stem[-1])
