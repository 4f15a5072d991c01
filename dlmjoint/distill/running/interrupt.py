"""A fit that is asked to end saves first: SIGTERM, Ctrl-C, and SLURM's warning before the time is up."""

import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from dlmjoint.distill.running.resume import unstepped
from dlmjoint.signals import asked_by

log = logging.getLogger(__name__)

EXIT_STATUS = 128 + signal.SIGTERM
"""143: ended on request, to be continued; 130 after Ctrl-C. Of the first process of each machine; the
others return 0, or Lightning's launcher would take them for crashed and kill the first one."""


class SaveAndExit(L.Callback):
    """On SIGTERM or SIGINT: finish the optimizer step, write `last.ckpt`, exit with status 143 or 130. A
    second SIGINT does not wait for the step.

    Lightning's own handler broadcasts from inside the signal, between whatever collectives the
    processes are in, writes nothing and ends with status 0. Here the signal only leaves a note;
    after each optimizer step the processes ask each other for it, so that any of them may get the
    signal and all of them stop at the same step. Training from there is what it would have been.
    """

    def __init__(self) -> None:
        self._asked = False
        self._status = EXIT_STATUS
        self._before: dict[signal.Signals, Any] = {}

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over from Lightning, which has just registered its own handlers."""
        if not self._before:
            self._asked = trainer.received_sigterm
            for number in _signals(trainer):
                self._before[number] = signal.signal(number, self._note)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same where the sanity check is left out."""
        self.on_sanity_check_start(trainer, pl_module)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if number == signal.SIGINT:
            self._status = 128 + number
            signal.signal(number, self._before.pop(signal.SIGINT))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Save and exit if a process was asked to, the optimizer has just stepped, and there are
        steps left."""
        if unstepped(trainer) or trainer.global_step == trainer.max_steps:
            return
        if not trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            return
        path = kept_in(trainer)[0] / "last.ckpt"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            log.info(
                "asked to end: saved step %d to %s; continue with --ckpt_path last",
                trainer.global_step,
                path,
            )
        raise SIGTERMException(self._status if trainer.local_rank == 0 else 0)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        while self._before:
            signal.signal(*self._before.popitem())

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back: no teardown follows an exception."""
        self.teardown(trainer, pl_module, "fit")


def _signals(trainer: L.Trainer) -> set[signal.Signals]:
    """What asks any process to end, and the signal that SLURM sends before the time is up."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.requeue_signal is not None:
        return {*asked_by(), environment.requeue_signal}
    return asked_by()


def kept_in(trainer: L.Trainer) -> list[Path]:
    """The folders a run keeps checkpoints in: those of its callbacks, and the one it saves to at the
    end where there are none."""
    named = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    return [*(Path(folder) for folder in named if folder), _folder(Path(trainer.default_root_dir))]


def _folder(root: Path) -> Path:
    """Where a run keeps checkpoints unless it is told otherwise."""
    return root / "checkpoints"


def keepers(callbacks: Sequence[L.Callback], root: Path) -> list[L.Callback]:
    """What keeps checkpoints under `root` where the callbacks keep none: after every validation, and
    a last one. Those that keep some but were not told where do it there, too; Lightning's default,
    beside the logs and new for every run, is no place to find the last one again."""
    kept = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
    added: list[L.Callback] = [] if kept else [ModelCheckpoint(save_last=True)]
    for callback in [*kept, *added]:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(_folder(root).resolve())
    return added
