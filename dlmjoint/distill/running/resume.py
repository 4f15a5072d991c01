"""What makes a resumed run the run it continues: nothing but its checkpoint, and that one whole.

Every batch, and every draw while training on it, is a function of (seed, batch number); a checkpoint
therefore needs the layer, the optimizer, the schedule and how many batches they have seen.
"""

from collections.abc import Mapping
from typing import Any

import lightning as L

from dlmjoint.errors import MismatchError


def trained_batches(trainer: L.Trainer) -> int:
    """Batches whose gradients the optimizer has stepped with."""
    return seen_batches(trainer) - unstepped(trainer)


def unstepped(trainer: L.Trainer) -> int:
    """Batches since the last optimizer step, where gradients are accumulated over several."""
    return seen_batches(trainer) % trainer.accumulate_grad_batches


def seen_batches(trainer: L.Trainer) -> int:
    """Batches whose gradients were taken."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # pyright: ignore[reportAttributeAccessIssue]


def validation_due(trainer: L.Trainer, validated: int) -> bool:
    """Whether the checkpoint a run goes on from was written just before a validation, which Lightning
    takes for done: that of as many batches as there are now, when the last one was `validated`."""
    every, seen = trainer.val_check_batch, seen_batches(trainer)
    if not trainer.limit_val_batches or not isinstance(every, int):
        return False
    return seen > validated and seen % every == 0


def validate_now(trainer: L.Trainer) -> None:
    """Validate as the training loop does between two batches."""
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True


def back_to_the_step(checkpoint: dict[str, Any], trainer: L.Trainer) -> None:
    """Let a checkpoint written between two optimizer steps count as one of the last step: gradients
    accumulated since are not in it, so their batches come again."""
    since = unstepped(trainer)
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        for stage in ("ready", "started", "processed", "completed"):
            counts[stage] -= since


def check_same(kind: str, saved: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raise MismatchError, naming what differs, unless a checkpoint was written with the settings
    it is to be continued with."""
    different = [name for name in here if saved.get(name) != here[name]]
    if different:
        told = "; ".join(f"{name} {saved.get(name)}, here {here[name]}" for name in different)
        raise MismatchError(
            f"the checkpoint is of another {kind}: {told}. Give the settings it was written with, or "
            "start a new run; dlmjoint.distill.start.Existing starts one from a finished sampler"
        )
