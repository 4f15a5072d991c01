"""The Lightning module: unroll, call the losses, log. Glue only."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric

from dlmjoint.decoding.draw import forbid
from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.losses import forward_kl, hidden_distance, same_top
from dlmjoint.distill.unroll import UnrollBatch, unroll
from dlmjoint.errors import ConfigError
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import Loading, load_base
from dlmjoint.provenance import write_json, write_provenance

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
        sampler: str | None = None,
        mix: float = 0.7,
        gain: float = 0.1,
        depth: int = 3,
        depth_weights: list[float] | None = None,
        kl_weight: float = 1.0,
        hidden_weight: float = 0.0,
        drift_weight: float = 0.0,
        optimizer: OptimizerCallable = default_optimizer,
        scheduler: LRSchedulerCallable | None = None,
        export: Path | None = None,
        loading: Loading | None = None,
    ) -> None:
        """
        Args:
            base: folder or hub id of the frozen base.
            revision: its hub commit.
            dtype: torch name of its weights.
            sampler: folder of a sampler to go on from; a new one starts as the base's last block.
            mix: weight of embedding and hidden state in a new sampler's projection.
            gain: output scale of a new sampler; 0 is the product of marginals.
            depth: sampler passes of the longest unroll; K - 1 for K tokens per forward.
            depth_weights: weight of every depth from 1; all alike by default.
            kl_weight: weight of KL(base || sampler) on masked columns.
            hidden_weight: weight of the distance to the base's hidden states at the same state.
            drift_weight: weight of the distance to the hidden states the unroll began with.
            optimizer: callable on the layer's parameters.
            scheduler: callable on the optimizer, stepped every batch.
            export: folder for the finished sampler; `sampler` beside the logs by default.
            loading: how the base comes into memory: device_map, bits, attention. A base with
                device_map or bits stays there: on a GPU, give `device_map: "cuda:0"`.
        """
        super().__init__()
        if depth < 1:
            raise ConfigError(f"depth is {depth}, expected at least 1 pass")
        self.depth_weights = depth_weights or [1.0] * depth
        if len(self.depth_weights) != depth:
            raise ConfigError(
                f"depth_weights has {len(self.depth_weights)} entries, expected depth={depth}"
            )
        self.loading, self.depth = loading or Loading(), depth
        self.base = load_base(base, dtype=dtype, revision=revision, loading=self.loading)
        if sampler is None:
            self.sampler = JointSampler.from_base(self.base, mix=mix, gain=gain)
        else:
            self.sampler = JointSampler.from_pretrained(sampler)
            self.sampler.check(self.base)
        self.sampler.config.trained_depth = depth
        self.weights = {"kl": kl_weight, "hidden": hidden_weight, "drift": drift_weight}
        self.optimizer, self.scheduler, self.export = optimizer, scheduler, export
        names = [f"{name}@{j}" for name in ("kl", "marginal_kl", "top1") for j in self._depths]
        self.metrics = nn.ModuleDict({name: MeanMetric() for name in names})

    @property
    def _depths(self) -> range:
        return range(1, self.depth + 1)

    def setup(self, stage: str) -> None:
        """Check that data and base belong together, and bring the base to this process's device."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(data, TrajectoryData):
            data.check(self.base)
            if data.window <= self.depth:
                raise ConfigError(
                    f"window is {data.window}: a depth of {self.depth} needs {self.depth + 1} states"
                )
        timed = any(isinstance(callback, Timer) for callback in self.trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue]
        if stage == "fit" and self.trainer.max_steps < 0 and not timed:
            raise ConfigError("training data has no end: set trainer.max_steps or trainer.max_time")
        self._place_base()

    def _place_base(self) -> None:
        """Bring the base to this process's device; one that must not move must be there already."""
        if not self.loading.placed:
            nn.Module.to(self.base.network, self.device)
        elif self.base.device != self.device:
            raise ConfigError(
                f"the base lies on {self.base.device}, this process trains on {self.device}: give "
                f'loading.device_map as "{self.device}"'
            )

    @torch.no_grad()
    def _targets(self, batch: UnrollBatch) -> Float[Tensor, "B W L D"]:
        """The base's hidden states of every state in the batch."""
        hidden = self.base.predict(batch.canvas()).hidden
        return hidden.unflatten(0, batch.states.shape[:2])

    def _log_probs(self, hidden: Float[Tensor, "C D"]) -> Float[Tensor, "C V"]:
        """Log-probabilities at temperature 1, without the ids that are never written."""
        logits = self.base.unembed(hidden).float()
        return forbid(logits, self.base.forbidden_ids).log_softmax(-1)

    def depth_losses(
        self, batch: UnrollBatch
    ) -> Iterator[tuple[Float[Tensor, " C"], Float[Tensor, " C"]]]:
        """Yield, for every depth from 1, each masked cell's loss and its KL part."""
        target, masked = self._targets(batch), batch.masked
        teacher, state = self._teacher(target, masked)
        for passes, hidden in self._unroll(batch, target):
            cells = masked[:, passes:]
            kl = forward_kl(teacher[state >= passes], self._log_probs(hidden[cells]))
            loss = self.weights["kl"] * kl
            if self.weights["hidden"]:
                distance = hidden_distance(target[:, passes:][cells], hidden[cells])
                loss = loss + self.weights["hidden"] * distance
            if self.weights["drift"]:
                distance = hidden_distance(target[:, :-passes][cells], hidden[cells])
                loss = loss + self.weights["drift"] * distance
            yield loss, kl.detach()

    def _unroll(
        self, batch: UnrollBatch, target: Float[Tensor, "B W L D"]
    ) -> Iterator[tuple[int, Float[Tensor, "B S L D"]]]:
        """The number of passes and the sampler's hidden states after them."""
        return enumerate(unroll(self.base, self.sampler, batch, target, self.depth), 1)

    def training_step(self, batch: UnrollBatch, batch_idx: int) -> Tensor:
        """The weighted loss over all depths and starts of the batch."""
        total = torch.zeros((), device=self.device)
        for passes, (loss, kl) in enumerate(self.depth_losses(batch), 1):
            mean = loss.sum() / self._count(len(loss))
            total = total + self.depth_weights[passes - 1] / sum(self.depth_weights) * mean
            self.log(f"train/kl@{passes}", kl.mean(), prog_bar=passes == self.depth)
        return total

    def _teacher(
        self, target: Float[Tensor, "B W L D"], masked: Tensor
    ) -> tuple[Float[Tensor, "C V"], Int[Tensor, " C"]]:
        """The base's log-probabilities at every masked cell, and the state each cell is of."""
        with torch.no_grad():
            return self._log_probs(target[masked]), masked.nonzero()[:, 1]

    def _count(self, cells: int) -> Tensor:
        """Cells per process on average, over all processes: with gradients averaged over processes
        the result is the mean over all cells, however they are spread."""
        count = torch.tensor(float(cells), device=self.device)
        return self.trainer.strategy.reduce(count, reduce_op="mean").clamp(min=1)

    @torch.no_grad()
    def validation_step(self, batch: UnrollBatch, batch_idx: int) -> None:
        """Every depth's KL and top-1 agreement, beside what the marginals would give."""
        target, masked = self._targets(batch), batch.masked
        teacher, state = self._teacher(target, masked)
        for passes, hidden in self._unroll(batch, target):
            cells, wanted = masked[:, passes:], teacher[state >= passes]
            student = self._log_probs(hidden[cells])
            marginal = self._log_probs(target[:, :-passes][cells])
            found = {
                "kl": forward_kl(wanted, student),
                "marginal_kl": forward_kl(wanted, marginal),
                "top1": same_top(wanted, student).float(),
            }
            for name, values in found.items():
                metric = self.metrics[f"{name}@{passes}"]
                assert isinstance(metric, MeanMetric)
                metric.update(values)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all masked cells of all processes."""
        for name, metric in self.metrics.items():
            assert isinstance(metric, MeanMetric)
            shown = name in (f"kl@{self.depth}", f"marginal_kl@{self.depth}")
            self.log(f"val/{name}", metric.compute(), prog_bar=shown, sync_dist=False)
            metric.reset()

    def configure_optimizers(self) -> Any:
        """The optimizer over the layer's parameters, the scheduler stepped every batch."""
        optimizer = self.optimizer(self.sampler.parameters())
        if self.scheduler is None:
            return optimizer
        schedule = {"scheduler": self.scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_train_end(self) -> None:
        """Export the sampler as a folder with its provenance and last validation numbers."""
        if not self.trainer.is_global_zero:
            return
        folder = self.export or Path(self.trainer.default_root_dir) / "sampler"
        self.sampler.save_pretrained(folder)
        measured = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
        write_json(folder / "metrics.json", {"step": self.trainer.global_step, **measured})
        write_provenance(folder, {"base": self.base.name, "depth": self.depth, **self.weights})
        log.info("exported the sampler to %s", folder)
