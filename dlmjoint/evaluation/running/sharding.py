"""Which of several processes this one is. Processes share a folder and nothing else.

They are started as those of `dlmjoint generate` are: `--devices 2` starts them here, `torchrun` or
SLURM elsewhere (then `--devices` and `--num_nodes` say what was started).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from dlmjoint.errors import ConfigError

PATIENCE = timedelta(days=30)
"""How long one process waits for another that is still decoding; a dead one is noticed at once."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Processes:
    """This process among all of them; alone by default."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    """Where this process's models run."""
    wait: Callable[[], None] = lambda: None
    """Returns once every process has called it."""
    parent: int = field(default_factory=os.getppid)
    """Who started this process."""

    @property
    def first(self) -> bool:
        """Is this the one that speaks and scores?"""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every world-th item, from this process's rank on."""
        return items[self.rank :: self.world]

    def stop_if_orphaned(self) -> None:
        """End a process whose launcher was killed: what it would still write, a resumed run is
        writing too. The first process has no launcher in a run of its own, and goes on."""
        if not self.first and os.getppid() != self.parent:
            raise SystemExit("the process that started this one is gone; run it again to go on")


def launch(device: str, devices: int | str = 1, num_nodes: int = 1) -> Processes:
    """Start the other processes, or find this one's place among those already started.

    Raises ConfigError if what was started is not what was asked for.
    """
    if devices in (1, "1") and num_nodes == 1:
        _refuse_company()
        return Processes(device=device)
    kind, _, number = device.partition(":")
    if number:
        raise ConfigError(f"device is {device}: several processes choose their own, say {kind}")
    from lightning.fabric import Fabric  # takes seconds, which one process need not spend
    from lightning.fabric.strategies.ddp import DDPStrategy

    # Nothing but barriers goes between the processes, so gloo will do on GPUs too: it waits as
    # long as it is told to, which NCCL's watchdog does not.
    strategy = DDPStrategy(process_group_backend="gloo", timeout=PATIENCE)
    try:
        fabric = Fabric(
            accelerator="gpu" if kind == "cuda" else kind,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
        )
        fabric.launch()
    except ValueError as error:  # what was started and what was asked for do not agree
        raise ConfigError(f"devices={devices}, num_nodes={num_nodes}: {error}") from error
    return Processes(fabric.global_rank, fabric.world_size, str(fabric.device), fabric.barrier)


def _refuse_company() -> None:
    """One process was asked for: are there others, each of which would do all of the work?"""
    started = max(int(os.environ.get("WORLD_SIZE", "1")), slurm_tasks())
    if started > 1:
        raise ConfigError(
            f"{started} processes were started and one was asked for: "
            "give --devices (processes per machine) and --num_nodes"
        )


def slurm_tasks() -> int:
    """How many processes SLURM started; 1 outside of it and in a job it calls interactive."""
    if "SLURM_NTASKS" not in os.environ:
        return 1
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # takes seconds

    return SLURMEnvironment().world_size() if SLURMEnvironment.detect() else 1
