"""A run that goes on follows its config as it is now: rates, decay, schedule.

torch restores an optimizer and its schedule with the settings they were saved with, whatever the
config has come to say. Here they are made from the config, and brought to the step the run is at.
"""

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base

Groups = list[dict[str, Any]]
"""An optimizer's settings, group by group, without the parameters."""
Maker = Callable[[], tuple[Optimizer, LRScheduler | None]]
"""Makes the config's optimizer, and its schedule if there is one, at step 0."""
SCHEDULED = ("lr", "momentum", "betas")
"""What torch's schedules change."""


def groups_of(optimizer: Optimizer) -> Groups:
    """A copy of an optimizer's settings."""
    return [
        {name: deepcopy(value) for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


@dataclass(frozen=True)
class Before:
    """What a checkpoint says of the config its run had."""

    groups: Groups
    """At step 0."""
    schedule: Mapping[str, Any]
    """The schedule's state; empty without one."""
    told: Mapping[str, str]
    """Settings that nothing restores, to say which are new."""
    measured: Mapping[str, float]
    """The last numbers of training and validation."""
    validated: int
    """Batches seen when it was validated last."""

    @classmethod
    def take(cls, checkpoint: dict[str, Any]) -> "Before":
        """Read it, and leave no schedule to be restored: the config may name one of another kind."""
        (schedule,) = checkpoint["lr_schedulers"] or [{}]
        checkpoint["lr_schedulers"] = []
        settings, measured = checkpoint["settings"], checkpoint["measured"]
        return cls(
            settings["groups"],
            schedule,
            settings["told"],
            measured["numbers"],
            measured["validated"],
        )


def told(trainer: L.Trainer, base: Base) -> dict[str, str]:
    """What a run may change from one checkpoint to the next, and says that it did."""
    names = ("max_steps", "precision", "gradient_clip_val", "gradient_clip_algorithm")
    return {
        **{name: str(getattr(trainer, name)) for name in names},
        "dtype": str(base.dtype),
        "bits": str(base.bits),
    }


def follow(trainer: L.Trainer, make: Maker, before: Before, told: Mapping[str, str]) -> list[str]:
    """Bring a restored optimizer and its schedule to what the config says of the trainer's step.

    What an optimizer learns and keeps among its settings (Prodigy's distance) stays: taken from the
    config is what schedules change, and what the config says otherwise than it did before. Returns
    what is new, in words.
    """
    new = [
        f"{n} {before.told[n]}, now {value}" for n, value in told.items() if value != before.told[n]
    ]
    optimizer, schedule = make()
    start = groups_of(optimizer)
    _advance(schedule, trainer.global_step)
    there = zip(
        trainer.optimizers[0].param_groups,
        before.groups,
        start,
        groups_of(optimizer),
        strict=True,
    )
    for group, was, first, now in there:
        for name in was.keys() - now.keys():  # of a schedule there is no more
            group.pop(name, None)
        for name, value in now.items():
            ours = name in SCHEDULED or value != first[name] or first[name] != was.get(name)
            if ours and group.get(name) != value:
                new.append(f"{name} {group.get(name)}, now {value}")
                group[name] = value
    if schedule is not None:
        (config,) = trainer.lr_scheduler_configs
        state = schedule.state_dict()
        config.scheduler.load_state_dict(state)
        new += [
            f"{name} {before.schedule[name]}, now {value}"
            for name, value in state.items()
            if not name.startswith("_") and before.schedule.get(name, value) != value
        ]
    return new


def check_rates(make: Maker, first: int, last: int) -> None:
    """Raise ConfigError if every rate is 0 in all steps from `first` to `last`: the run would end
    with the layer it begins with."""
    optimizer, schedule = make()
    _advance(schedule, first)
    for _ in range(first, last):
        if any(float(group["lr"]) for group in optimizer.param_groups):
            return
        _advance(schedule, 1)
    if first < last:
        raise ConfigError(
            f"the rate is 0 in every step from {first} to {last}: nothing would be trained. A longer "
            "run needs a longer schedule (total_iters, T_max, ... of model.scheduler), or none"
        )


def _advance(schedule: LRScheduler | None, steps: int) -> None:
    """Step by step: most schedules are defined by their last value."""
    if schedule is None:
        return
    with warnings.catch_warnings():
        # The optimizer it belongs to is never stepped, and was not meant to be.
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step")
        for _ in range(steps):
            schedule.step()
