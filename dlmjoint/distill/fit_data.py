"""What every source of training batches shares: an endless stream, exactly resumed."""

from abc import abstractmethod
from typing import Any, ClassVar

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from dlmjoint.distill.running.resume import check_same, trained_batches
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base


class FitData(L.LightningDataModule):
    """Training data has no epochs: batch number t is a function of t and the settings, without end,
    and `trainer.max_steps` ends the run. A resumed run continues with the batch after the last one
    trained on. A new source is a new file; YAML names it under `data`."""

    runs_base: ClassVar[bool] = False
    """Calls the base while training, as often as each process's own rows take."""

    def __init__(self, batch_size: int, window: int, val_batches: int, seed: int) -> None:
        """Raises ConfigError if a window has no two states."""
        super().__init__()
        if window < 2:
            raise ConfigError(f"window is {window}, expected at least 2 states")
        self.batch_size, self.window, self.seed = batch_size, window, seed
        self.val_batches, self.first_batch = val_batches, 0

    @abstractmethod
    def check(self, base: Base) -> None:
        """Raise MismatchError unless the data belongs to this base."""

    @abstractmethod
    def stream(self) -> dict[str, str]:
        """All that batch number t depends on but t."""

    @property
    def processes(self) -> tuple[int, int]:
        """This process's rank and the number of processes. Raises ConfigError if they cannot share
        a batch."""
        assert self.trainer is not None
        world_size = self.trainer.world_size
        if self.batch_size % world_size:
            raise ConfigError(
                f"batch_size is {self.batch_size}, expected a multiple of the {world_size} processes"
            )
        return self.trainer.global_rank, world_size

    def state_dict(self) -> dict[str, Any]:
        """How many batches were trained on, and of which stream."""
        assert self.trainer is not None
        return {"batches": trained_batches(self.trainer), "stream": self.stream()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after them. Raises MismatchError if it is another stream that is to go on."""
        assert self.trainer is not None
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_same("stream of batches", state_dict.get("stream", {}), self.stream())
            self.first_batch = state_dict["batches"]
