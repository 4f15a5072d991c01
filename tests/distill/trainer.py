"""A trainer for a few steps that leaves nothing behind but what it is asked for."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.conftest import GOLDEN

BASE = str(GOLDEN / "dream")


def small_trainer(root: Path, steps: int, *callbacks: L.Callback, **settings: Any) -> L.Trainer:
    """On a CPU, without logs; checkpoints only where a callback writes them."""
    chosen: dict[str, Any] = {"val_check_interval": 4} | settings
    return L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=1,
        default_root_dir=root,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
        **chosen,
    )
