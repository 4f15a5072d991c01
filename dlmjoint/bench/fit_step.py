"""Training steps of `dlmjoint fit`, on trajectories of random tokens."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch

from dlmjoint.bench.measure import (
    Measured,
    device_peak_bytes,
    restart_device_peak,
    within_memory,
)
from dlmjoint.bench.random_trajectories import random_store
from dlmjoint.bench.suite import Setting
from dlmjoint.decoding.tally import clock
from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.module import Distillation
from dlmjoint.trajectories.store import TrajectoryStore

LENGTH = 128
"""Columns of the training step, as in ADJUST's unconditional recipe; fewer if the base has fewer."""
WINDOW = 4
"""States per window: the sampler is unrolled three passes deep, as K = 4 needs."""
EXAMPLES = 8
"""Trajectories; windows are drawn from them as often as a batch needs."""


class _StepTimes(L.Callback):
    """Seconds of every training step, optimizer included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.started = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Read the clock."""
        self.started = clock(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Read it again."""
        self.seconds.append(clock(pl_module.device) - self.started)


def fit_points(
    folder: Path, setting: Setting, note: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """A record per batch size: seconds of a training step, peak memory, parameters trained."""
    module = Distillation(str(folder), dtype=setting.dtype, depth=WINDOW - 1)
    length = min(LENGTH, module.base.max_length) - 1
    store = random_store(module.base, setting.workdir / "trajectories", EXAMPLES, length)
    trained = sum(p.numel() for p in module.sampler.parameters() if p.requires_grad)
    for batch_size in setting.batch_sizes:
        note(f"{folder.name}: {setting.repeats} training steps of {batch_size} windows")
        step = within_memory(lambda size=batch_size: _train(module, store, size, setting))
        told = {"out_of_memory": True} if step is None else step.to_json("training step")
        yield {
            "point": "fit",
            "batch_size": batch_size,
            "length": store.manifest.max_new_tokens + 1,
            "trained_parameters": trained,
            "measured": {"training step": told},
        }
    shutil.rmtree(store.folder)


def _train(
    module: Distillation, store: TrajectoryStore, batch_size: int, setting: Setting
) -> Measured:
    """Real training steps, after one that is not measured."""
    device, times = torch.device(setting.device), _StepTimes()
    on_gpu = device.type == "cuda"
    restart_device_peak(device)
    trainer = L.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[device.index or 0] if on_gpu else 1,
        precision="bf16-mixed" if on_gpu and setting.dtype == "bfloat16" else "32-true",
        max_steps=setting.repeats + 1,
        max_epochs=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        default_root_dir=store.folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[times],
    )
    trainer.fit(module, TrajectoryData(store.folder, batch_size=batch_size, window=WINDOW))
    return Measured(times.seconds[1:], 1, device_peak_bytes(device))
