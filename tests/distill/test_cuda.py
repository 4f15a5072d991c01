"""Strategies that refuse a CPU, on one GPU in bfloat16; every law here has a sibling on the CPU."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.strategies import Strategy
from safetensors.torch import load_file

from dlmjoint.models.joint import JointSampler
from tests.distill.processes import finish, start
from tests.distill.strategies import STEPS, fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "fit" / "strategy"
NAMES = ["fsdp", "fsdp2", "fsdp2-base", "deepspeed-zero1", "deepspeed-zero2", "deepspeed-zero3"]


def _strategy(name: str) -> tuple[Strategy | str, dict[str, Any]]:
    """What a config of a strategy says: the strategy, and settings of the model."""
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_argument("--trainer.strategy", type=Strategy | str)
    parser.add_argument("--model.shard_base", type=bool, default=False)
    made = parser.instantiate(parser.parse_args(["--config", str(CONFIGS / f"{name}.yaml")]))
    return made.trainer.strategy, {"shard_base": made.model.shard_base}


def run(root: Path, folder: Path, name: str, recipe: str, ckpt_path: Path | None) -> None:
    """A fit of a process; what it finds is written beside its export."""
    strategy, settings = ("auto", {}) if name == "auto" else _strategy(name)
    found = fit(
        root,
        folder,
        recipe,
        strategy,
        ckpt_path=ckpt_path,
        accelerator="gpu",
        precision="bf16-mixed",
        **settings,
    )
    found["peak"] = torch.cuda.max_memory_allocated()
    (root / "found.json").write_text(json.dumps(found))


def _run(root: Path, folder: Path, name: str, recipe: str, ckpt_path: Path | None = None) -> dict:
    root.mkdir(parents=True, exist_ok=True)
    assert finish(start(1, run, root, folder, name, recipe, ckpt_path)) == [0]
    return json.loads((root / "found.json").read_text())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, tuple[Path, dict]]:
    """The same fits without a strategy, on the same device."""
    root = tmp_path_factory.mktemp("plain")
    recipes = ("default", "own_windows")
    return {name: (root / name, _run(root / name, folder, "auto", name)) for name in recipes}


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_learns_what_one_process_learns_and_exports_it(
    tmp_path: Path, folder: Path, plain: dict[str, tuple[Path, dict]], name: str
) -> None:
    if name.startswith("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    root, expected = plain["default"]
    found = _run(tmp_path, folder, name, "default")
    assert len(found["losses"]) == STEPS
    assert found["losses"] == pytest.approx(expected["losses"], rel=0.1)  # bfloat16, all or in part
    assert all(math.isfinite(found[f"val/kl@{depth}"]) for depth in (1, 2, 3))
    whole, exported = (load_file(r / "sampler" / "model.safetensors") for r in (root, tmp_path))
    assert whole.keys() == exported.keys()
    for key, weight in whole.items():
        assert exported[key].dtype == torch.float32
        # Five AdamW steps of 1e-3 may turn apart where bfloat16 rounds a gradient's sign.
        torch.testing.assert_close(exported[key], weight, rtol=0, atol=1e-2)
    assert JointSampler.from_pretrained(tmp_path / "sampler").config.trained_depth == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_resumes_from_its_checkpoint(tmp_path: Path, folder: Path, name: str) -> None:
    if name.startswith("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    whole = _run(tmp_path / "whole", folder, name, "default")
    (path,) = (tmp_path / "whole").glob("step=3.ckpt")
    resumed = _run(tmp_path / "resumed", folder, name, "default", path)
    # Sums of atomic additions differ from run to run on a GPU; on a CPU this is exact.
    assert resumed["losses"] == pytest.approx(whole["losses"][3:], rel=1e-2)


@pytest.mark.parametrize("name", ["fsdp2", "fsdp2-base", "deepspeed-zero3"])
def test_windows_the_sampler_writes_work_with_weights_in_shards(
    tmp_path: Path, folder: Path, plain: dict[str, tuple[Path, dict]], name: str
) -> None:
    if name.startswith("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    found = _run(tmp_path, folder, name, "own_windows")
    assert found["losses"] == pytest.approx(plain["own_windows"][1]["losses"], rel=0.3)
