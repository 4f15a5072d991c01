"""`fit` and its relatives as Lightning's command line.

A module of its own, since Lightning takes seconds to import and no other command should pay for it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from dlmjoint.disk.atomic import sweep
from dlmjoint.disk.paths import expanded
from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.fit_data import FitData
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.running.checkpoints import LAST, Use, check_named, to_go_on_from
from dlmjoint.distill.running.interrupt import SaveAndExit, keepers, kept_in
from dlmjoint.suggest import Parser


class TrainerParser(Parser, LightningArgumentParser):
    """Lightning's, with suggestions."""


class TrainCLI(LightningCLI):
    """LightningCLI with CSV and TensorBoard logs where no logger is named, on stored trajectories
    where no other data is, and with checkpoints where a later run looks for the last one."""

    def __init__(self, verb: str, *args: Any, **kwargs: Any) -> None:
        """`verb`: what is asked for; the parsers of the others are not built, which takes a while."""
        self.verb = verb
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The verb that is asked for, and what of its method's settings Lightning itself fills in."""
        return {self.verb: LightningCLI.subcommands()[self.verb]}

    def add_arguments_to_parser(self, parser: Any) -> None:
        """`data` names a class only where it is not `TrajectoryData`."""
        kind = f"{TrajectoryData.__module__}.{TrajectoryData.__qualname__}"
        parser.set_defaults({"data": {"class_path": kind}})

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Settle the paths, and refuse a missing or damaged checkpoint before anything is built.

        Raises LoadError, ConfigError.
        """
        super().parse_arguments(parser, args)
        self.config = expanded(self.config)
        settings = self.config[self.config["subcommand"]]
        if settings["trainer"]["default_root_dir"] is None:
            settings["trainer"]["default_root_dir"] = TRAINING["trainer_defaults"][
                "default_root_dir"
            ]
        path = settings.get("ckpt_path")
        if path not in (None, LAST):
            check_named(str(path), self._use(settings))

    def _parse_ckpt_path(self) -> None:
        """Lightning would load the checkpoint here, for hyperparameters that ours do not hold."""

    def _use(self, settings: Any) -> Use:
        """What this command wants a checkpoint for."""
        trusted = settings.get("weights_only") is False
        return Use(fitting=self.config["subcommand"] == "fit", trusted=trusted)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A trainer that logs to files under its root directory, keeps checkpoints there, and saves
        one when it is asked to end."""
        settings = self._get(self.config_init, "trainer")
        root = settings["default_root_dir"]
        if settings.get("logger") in (None, True):
            kwargs["logger"] = [CSVLogger(root, name="logs"), TensorBoardLogger(root, name="logs")]
        given = settings.get("callbacks") or []
        callbacks = [SaveAndExit(), *(given if isinstance(given, list) else [given])]
        if settings.get("enable_checkpointing") is not False:
            callbacks += keepers(callbacks, Path(root))
        return super().instantiate_trainer(**{**kwargs, "callbacks": callbacks})

    def before_fit(self) -> None:
        """Remove what a killed run was writing, and find the checkpoint that `last` means: every one
        counts, and none is left out silently."""
        if self.trainer.is_global_zero:
            for folder in filter(None, (self.trainer.default_root_dir, self.model.export)):
                sweep(Path(folder))
        chosen = self.config_init[str(self.subcommand)]
        if chosen.get("ckpt_path") == LAST:
            chosen["ckpt_path"] = to_go_on_from(kept_in(self.trainer), self._use(chosen))

    before_validate = before_test = before_predict = before_fit


TRAINING: dict[str, Any] = {
    "auto_configure_optimizers": False,
    "parser_class": TrainerParser,
    "save_config_kwargs": {"overwrite": True},
    "seed_everything_default": 0,
    "trainer_defaults": {
        # One endless epoch: max_steps ends a run, val_check_interval counts steps.
        "default_root_dir": "runs/fit",
        "max_epochs": 1,
        "check_val_every_n_epoch": None,
        "val_check_interval": 500,
        "use_distributed_sampler": False,
        "inference_mode": False,  # weights gathered in it could not be trained with afterwards
        "enable_model_summary": False,
    },
}


def training(arguments: Sequence[str] | None = None) -> None:
    """Do what a trainer's verb and its settings say; those of the process by default.

    Raises LoadError, ConfigError.
    """
    verb, *_ = sys.argv[1:] if arguments is None else arguments
    TrainCLI(verb, Distillation, FitData, subclass_mode_data=True, args=arguments, **TRAINING)
