"""The Lightning module: unroll, call the losses, log. Glue only."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed import is_available, is_initialized
from torch.distributed.fsdp import FullyShardedDataParallel
from torchmetrics import MeanMetric

from dlmjoint.decoding.draw import forbid
from dlmjoint.distill.chunked import chunk_size
from dlmjoint.distill.fit_data import FitData
from dlmjoint.distill.objective import Compared, Objective, agreement, cell_losses
from dlmjoint.distill.on_policy import OnPolicy
from dlmjoint.distill.pairs import AllDepths, Pairs, weights_of
from dlmjoint.distill.running.export import check_place, export
from dlmjoint.distill.running.follow import Before, check_rates, follow, groups_of, told
from dlmjoint.distill.running.resume import (
    back_to_the_step,
    check_same,
    seen_batches,
    validate_now,
    validation_due,
)
from dlmjoint.distill.running.sharding import place_base, shard_layer, spare_rotary, whole_weights
from dlmjoint.distill.start import LastBlock, Start
from dlmjoint.distill.targets import compare
from dlmjoint.distill.unrolling.unroll import UnrollBatch
from dlmjoint.errors import ConfigError
from dlmjoint.models.load import Loading, load_base
from dlmjoint.random import derive_seed

log = logging.getLogger(__name__)


def default_optimizer(parameters: object) -> torch.optim.Optimizer:
    """AdamW as in ADJUST's recipe, at a rate for a layer that starts as the base's own."""
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0)  # pyright: ignore[reportArgumentType]


class Distillation(L.LightningModule):
    """Trains a joint sampler to predict, after j commits, what the base would.

    The base is a plain object outside the module: checkpoints hold the layer alone.
    """

    def __init__(
        self,
        base: str,
        revision: str | None = None,
        dtype: str = "float32",
        start: Start | None = None,
        depth: int = 3,
        depth_weights: list[float] | None = None,
        pairs: Pairs | None = None,
        objective: Objective | None = None,
        on_policy: OnPolicy | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        scheduler: LRSchedulerCallable | None = None,
        export: Path | None = None,
        loading: Loading | None = None,
        head_chunk: int | None = None,
        shard_base: bool = False,
        compile_layer: bool = False,
        overwrite: bool = False,
    ) -> None:
        """
        Args:
            base: folder or hub id of the frozen base.
            revision: its hub commit.
            dtype: torch name of its weights.
            start: what the sampler is at first: the base's last block by default.
            depth: sampler passes of the longest unroll; K - 1 for K tokens per forward.
            depth_weights: weight of every depth from 1; all alike by default.
            pairs: which starts and targets a window trains on: all of them by default.
            objective: the loss of a cell: KL(base || sampler) by default.
            on_policy: share of windows that the sampler writes itself; none by default.
            optimizer: callable on the layer's parameters.
            scheduler: callable on the optimizer, stepped every batch.
            export: folder for the finished sampler; `sampler` beside the logs by default.
            loading: how the base comes into memory: device_map, bits, attention. A base with
                device_map or bits stays there: on a GPU, give `device_map: "cuda:0"`.
            head_chunk: cells that go through the head at a time; as many as suit the device by
                default. Changes memory and speed, not the result.
            shard_base: spread the base's blocks over all processes, under any strategy; every
                process holds the whole base by default.
            compile_layer: run the layer through `torch.compile`, for any shapes: a minute or two
                before the first step, a tenth faster on a CPU (docs/reference/training.md).
            overwrite: export over a sampler of more steps, or of unknown training: refused by
                default.
        """
        super().__init__()
        self.depth_weights = weights_of(depth, depth_weights)
        if head_chunk is not None and head_chunk < 1:
            raise ConfigError(f"head_chunk is {head_chunk}, expected at least 1 cell")
        self.objective, self.on_policy = objective or Objective(), on_policy
        if on_policy is not None and self.objective.divergence.needs_tokens:
            raise ConfigError(
                "windows the sampler writes itself have no final tokens to compare with: leave "
                "on_policy out, or choose another divergence"
            )
        self.pairs, self.head_chunk = pairs or AllDepths(), head_chunk
        self.loading, self.depth, self.shard_base = loading or Loading(), depth, shard_base
        self.compile_layer = compile_layer
        if shard_base and self.loading.placed:
            raise ConfigError("shard_base spreads the base itself: leave out device_map and bits")
        self.base = load_base(base, dtype=dtype, revision=revision, loading=self.loading)
        self.start = start or LastBlock()
        self.sampler = self.start(self.base)
        self.sampler.config.trained_depth = depth
        self.optimizer, self.scheduler, self.export = optimizer, scheduler, export
        self.overwrite, self._exported = overwrite, False
        self._before: Before | None = None
        self._validated = 0
        names = [f"{name}@{j}" for name in ("kl", "marginal_kl", "top1") for j in self._depths]
        self.metrics = nn.ModuleDict({name: MeanMetric() for name in names})

    @property
    def _depths(self) -> range:
        return range(1, self.depth + 1)

    def setup(self, stage: str) -> None:
        """Check that data and base belong together, and bring the base to this process's device."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(data, FitData):
            data.check(self.base)
            if self.shard_base and data.runs_base:
                raise ConfigError(
                    "shard_base gathers the base's blocks in every forward, in all processes at "
                    "once, and this data runs the base by itself: leave shard_base out, or train "
                    "on stored trajectories"
                )
            if data.window <= self.depth:
                raise ConfigError(
                    f"window is {data.window}: a depth of {self.depth} needs {self.depth + 1} states"
                )
        timed = any(isinstance(callback, Timer) for callback in self.trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue]
        if stage == "fit" and self.trainer.max_steps < 0 and not timed:
            raise ConfigError("training data has no end: set trainer.max_steps or trainer.max_time")
        if stage == "fit" and not (self.trainer.fast_dev_run or self.overwrite):  # pyright: ignore[reportAttributeAccessIssue]
            check_place(self._folder, self.trainer)
        place_base(self.base, self.loading, self.shard_base, self.device)

    def configure_model(self) -> None:
        """Spread the layer where the strategy leaves that to the module and gives it a mesh; compile
        it where asked."""
        spare_rotary(self.trainer.strategy, self.sampler, self.device)
        if self.device_mesh is not None:
            shard_layer(self.sampler, self.device)
        if self.compile_layer:
            self.sampler.compile(dynamic=True)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all processes: weights in flat shards (FSDP's first version) clip
        themselves, the norm of a shard is not theirs."""
        model = self.trainer.strategy.model
        if gradient_clip_val and isinstance(model, FullyShardedDataParallel):
            model.clip_grad_norm_(gradient_clip_val)
            return
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def training_step(self, batch: UnrollBatch, batch_idx: int) -> Tensor:
        """The weighted loss over all depths and starts of the batch."""
        # What a block draws, dropout, is the batch's too: a resumed run draws the same.
        torch.manual_seed(derive_seed(batch.seed, batch.places[0], "layer"))
        found, loss, counts = self.losses(batch)
        total = torch.zeros((), device=self.device)
        for depth, weight in enumerate(self.depth_weights, 1):
            here = found.depth == depth
            mean = (loss[here] * counts[here]).sum() / self._count(counts[here].sum())
            total = total + weight / sum(self.depth_weights) * mean
        self.log("train/loss", total.detach(), prog_bar=True, sync_dist=True)
        return total

    def losses(
        self, batch: UnrollBatch
    ) -> tuple[Compared, Float[Tensor, " M"], Float[Tensor, " M"]]:
        """The cells a batch trains on, each one's loss, and how much it counts."""
        if self.on_policy is not None:
            in_step = is_available() and is_initialized()
            batch = self.on_policy.rewrite(
                batch, self.base, self.sampler, self.global_step, in_step=in_step
            )
        found = self._compared(batch, self.pairs, self.depth_weights)
        return found, *cell_losses(self.objective, found, self.log_probs, self._chunk)

    def _compared(self, batch: UnrollBatch, pairs: Pairs, weights: list[float]) -> Compared:
        """The batch's cells: what the sampler makes of them beside what the base says."""
        final = batch.ended if self.objective.divergence.needs_tokens else None
        return compare(self.base, self.sampler, batch, pairs, weights, final)

    def log_probs(self, hidden: Float[Tensor, "*cells D"]) -> Float[Tensor, "*cells V"]:
        """Log-probabilities at temperature 1, without the ids that are never written."""
        logits = self.base.unembed(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return forbid(logits, self.base.forbidden_ids).log_softmax(-1)

    @property
    def _chunk(self) -> int:
        return self.head_chunk or chunk_size(self.base.vocab_size, self.device)

    def _count(self, counted: Tensor) -> Tensor:
        """What is counted per process on average, over all processes: with gradients averaged over
        processes the result is the mean over all cells, however they are spread. Where nothing is
        counted there is nothing to divide."""
        count = self.trainer.strategy.reduce(counted.detach(), reduce_op="mean")
        return torch.where(count > 0, count, torch.ones_like(count))

    @torch.no_grad()
    def validation_step(self, batch: UnrollBatch, batch_idx: int) -> None:
        """Every depth's KL and top-1 agreement, beside what the marginals would give."""
        found = self._compared(batch, AllDepths(), [1.0] * self.depth)
        kl, marginal, top = agreement(found, self.log_probs, self._chunk)
        for depth in self._depths:
            here = found.depth == depth
            for name, values in (("kl", kl), ("marginal_kl", marginal), ("top1", top)):
                metric = self.metrics[f"{name}@{depth}"]
                assert isinstance(metric, MeanMetric)
                metric.update(values[here])

    def on_validation_epoch_end(self) -> None:
        """Log the means over all masked cells of all processes."""
        for name, metric in self.metrics.items():
            assert isinstance(metric, MeanMetric)
            shown = name in (f"kl@{self.depth}", f"marginal_kl@{self.depth}")
            self.log(f"val/{name}", metric.compute(), prog_bar=shown, sync_dist=False)
            metric.reset()
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._validated = seen_batches(self.trainer)

    def configure_optimizers(self) -> Any:
        """The optimizer over the layer's parameters, the scheduler stepped every optimizer step."""
        optimizer, scheduler = self._make_optimizer()
        if scheduler is None:
            return optimizer
        every_step = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": every_step}

    def _make_optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        """As the config has them at step 0; the scheduler is None where there is none."""
        optimizer = self.optimizer(self.sampler.parameters())
        return optimizer, None if self.scheduler is None else self.scheduler(optimizer)

    def on_train_start(self) -> None:
        """Let a resumed run follow its config as it is now, and say what is new in it. Raises
        ConfigError if no step that is left would change the layer."""
        trainer = self.trainer
        check_rates(self._make_optimizer, self.global_step, trainer.max_steps)
        if self._before is None:
            return
        new = follow(trainer, self._make_optimizer, self._before, told(self.trainer, self.base))
        if new and trainer.is_global_zero:
            told_of = "going on from step %d by the config as it is now: %s"
            log.info(told_of, self.global_step, "; ".join(new))
        self._validate_if_due()

    def _validate_if_due(self) -> None:
        """Validate where the checkpoint resumed from was written just before a validation."""
        if self._before is not None and validation_due(self.trainer, self._before.validated):
            validate_now(self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose checkpoint it is, and make it one of an optimizer step."""
        back_to_the_step(checkpoint, self.trainer)
        checkpoint["recipe"] = self._recipe()
        groups = groups_of(self._make_optimizer()[0])
        checkpoint["settings"] = {"groups": groups, "told": told(self.trainer, self.base)}
        checkpoint["measured"] = {"numbers": self._measured(), "validated": self._validated}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise MismatchError unless it is this base's and, to go on training, this recipe's."""
        saved, here = checkpoint.get("recipe", {}), self._recipe()
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        check_same("base or recipe", saved, here if fitting else {"base": here["base"]})
        if fitting:
            self._before = Before.take(checkpoint)
            self._validated = self._before.validated

    def _recipe(self) -> dict[str, str]:
        """What a run may not change from one checkpoint to the next."""
        some = [nn.Parameter(torch.zeros(2, 2))]
        return {
            "base": f"{self.base.name} (weights {self.base.fingerprint})",
            "optimizer": type(self.optimizer(some)).__name__,
            "start": repr(self.start),
            "accumulate_grad_batches": str(self.trainer.accumulate_grad_batches),
            **{name: str(value) for name, value in self._chosen().items()},
        }

    def on_train_end(self) -> None:
        """Export the sampler as a folder with its provenance and last validation numbers."""
        weights = whole_weights(self.trainer.strategy.model or self, self.sampler)
        self._exported = True
        if not self.trainer.is_global_zero:
            return
        if self.trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            log.info("a trial (fast_dev_run): nothing is exported")
            return
        export(
            self._folder,
            self.sampler,
            weights,
            self.global_step,
            self._measured(),
            {"base": self.base.name, **self._chosen()},
            overwrite=self.overwrite,
        )

    def on_fit_end(self) -> None:
        """Export as well where the checkpoint resumed from was the last: there was nothing to train,
        so no training ended. Raises ConfigError if nothing has ever been trained."""
        if self._exported:
            return
        if self.global_step == 0:
            raise ConfigError(
                "nothing was trained, so there is nothing to export: trainer.max_steps, max_epochs "
                "or limit_train_batches allows no step"
            )
        self._validate_if_due()
        self.on_train_end()

    def _measured(self) -> dict[str, float]:
        """The last numbers of training and validation, those from before a resumption included."""
        before = {} if self._before is None else self._before.measured
        here = self.trainer.callback_metrics.items()
        return {**before, **{key: float(value) for key, value in here}}

    @property
    def _folder(self) -> Path:
        """Where the finished sampler goes."""
        return self.export or Path(self.trainer.default_root_dir) / "sampler"

    def _chosen(self) -> dict[str, object]:
        """What the checkpoints, and the exported sampler's provenance, say of its training."""
        names = ("pairs", "objective", "on_policy")
        told = {name: repr(getattr(self, name)) for name in names}
        return {"depth_weights": self.depth_weights, **told}
