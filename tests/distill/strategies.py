"""Fits under strategies, in processes of their own: what they lose, save and export, as JSON."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy, Strategy

from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.losses import CrossEntropy, ReverseKL
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.objective import Objective
from dlmjoint.distill.on_policy import OnPolicy
from dlmjoint.distill.optim import MuonAdamW
from dlmjoint.distill.pairs import OneDepth
from dlmjoint.trajectories.generate import generate
from dlmjoint.trajectories.prompts import Unconditional
from tests.conftest import GOLDEN

BASE = str(GOLDEN / "dream")
STEPS = 5

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "one_depth": {"pairs": OneDepth()},
    "weights": {"depth_weights": [1.0, 0.0, 3.0]},
    "terms": {"objective": Objective(ReverseKL(), 0.5, 1.0, 0.3, next_weight=2.0)},
    "tokens": {"objective": Objective(CrossEntropy())},
    "own_windows": {"on_policy": OnPolicy(rate=0.6)},
    "muon": {"optimizer": MuonAdamW},
}
"""Settings of a fit whose losses must not depend on the number of processes."""


def draw(folder: Path, **settings: Any) -> None:
    """Forty exact trajectories of the golden base."""
    prompts = Unconditional(40)
    generate(BASE, folder, prompts, max_new_tokens=10, shard_size=16, device="cpu", **settings)


def sharded() -> Strategy:
    """FSDP2 with one checkpoint file."""
    return ModelParallelStrategy(save_distributed_checkpoint=False)


class Losses(L.Callback):
    """Notes the loss of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """See the class."""
        self.seen.append(float(trainer.callback_metrics["train/loss"]))


def fit(
    root: Path,
    folder: Path,
    recipe: str,
    strategy: Strategy | str = "auto",
    *,
    steps: int = STEPS,
    ckpt_path: Path | None = None,
    accelerator: str = "cpu",
    devices: int = 1,
    precision: Any = None,
    **settings: Any,
) -> dict[str, Any]:
    """A short fit; its losses, and its last validation."""
    module = Distillation(BASE, depth=3, export=root / "sampler", **(RECIPES[recipe] | settings))
    losses = Losses()
    keep = ModelCheckpoint(root, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        precision=precision,
        max_steps=steps,
        max_epochs=1,
        gradient_clip_val=0.05,
        logger=False,
        callbacks=[losses, keep],
        default_root_dir=root,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=steps,
        num_sanity_val_steps=1,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
        inference_mode=False,
    )
    data = TrajectoryData(folder, batch_size=4, window=4, val_batches=2)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=False)
    found = trainer.callback_metrics.items()
    return {"losses": losses.seen, **{k: float(v) for k, v in found if k.startswith("val/")}}


def two_processes(root: Path) -> None:
    """Trajectories; all recipes under DDP, then the sharded strategies; in the processes there are."""
    folder = root / "trajectories"
    draw(folder, devices=2, strategy="ddp")
    torch.distributed.barrier()  # processes that generate do not wait for each other
    found = {name: fit(root / name, folder, name, "ddp", devices=2) for name in RECIPES}
    for name in ("default", "own_windows", "muon"):
        found[f"sharded_{name}"] = fit(
            root / f"sharded_{name}", folder, name, sharded(), devices=2, shard_base=name != "muon"
        )
    found["ddp_base"] = fit(root / "ddp_base", folder, "default", "ddp", devices=2, shard_base=True)
    for name in ("default", "muon"):
        resumed = f"resumed_{name}"
        path = root / f"sharded_{name}" / "step=3.ckpt"
        found[resumed] = fit(root / resumed, folder, name, sharded(), devices=2, ckpt_path=path)
    found["resumed_ddp"] = fit(
        root / "resumed_ddp",
        folder,
        "default",
        sharded(),
        devices=2,
        ckpt_path=root / "default" / "step=3.ckpt",
    )
    folders = ModelParallelStrategy()  # a checkpoint of shards
    found["shards"] = fit(root / "shards", folder, "default", folders, devices=2)
    found["resumed_shards"] = fit(
        root / "resumed_shards",
        folder,
        "default",
        ModelParallelStrategy(),
        devices=2,
        ckpt_path=root / "shards" / "step=3.ckpt",
    )
    if torch.distributed.get_rank() == 0:
        (root / "found.json").write_text(json.dumps(found))


class ZeroOnCPU(DeepSpeedStrategy):
    """DeepSpeed's own CPU backend, which Lightning does not let through."""

    @property
    def root_device(self) -> torch.device:
        """With a number, as DeepSpeed wants it."""
        return torch.device("cpu", 0)

    def setup_environment(self) -> None:
        """Without asking for CUDA."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Without comparing devices with ranks."""
        self.set_world_ranks()
        self._init_deepspeed_distributed()


def deepspeed(root: Path, folder: Path) -> None:
    """Every stage, and the last resumed, in the processes there are."""
    found = {}
    for stage in (1, 2, 3):
        for recipe in ("default", "own_windows"):
            name = f"zero{stage}_{recipe}"
            zero = ZeroOnCPU(stage=stage, logging_batch_size_per_gpu=1)
            found[name] = fit(root / name, folder, recipe, zero, devices=2)
        found[f"resumed_zero{stage}"] = fit(
            root / f"resumed_zero{stage}",
            folder,
            "default",
            ZeroOnCPU(stage=stage, logging_batch_size_per_gpu=1),
            devices=2,
            ckpt_path=root / f"zero{stage}_default" / "step=3.ckpt",
        )
    if torch.distributed.get_rank() == 0:
        (root / "found.json").write_text(json.dumps(found))
