"""Draw exact trajectories under `Trainer.predict`: any strategy, any number of processes and nodes.

Processes share nothing: each draws its part of the missing shards and writes them itself.
"""

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter, RichProgressBar
from torch.utils.data import DataLoader, Dataset

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.order import LowEntropy, Order
from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.load import Loading, load_base
from dlmjoint.provenance import write_provenance
from dlmjoint.random import Noise
from dlmjoint.trajectories.prompts import Prompts
from dlmjoint.trajectories.record import record
from dlmjoint.trajectories.store import Manifest, TrajectoryStore
from dlmjoint.types import Trajectory

log = logging.getLogger(__name__)


class Work(Dataset[tuple[int, tuple[int, ...]]]):
    """This process's batches: (shard, example ids); a batch never spans two shards."""

    def __init__(self, manifest: Manifest, shards: list[int], batch_size: int) -> None:
        self.batches = [
            (shard, tuple(ids[start : start + batch_size]))
            for shard in shards
            for ids in [manifest.shard_ids(shard)]
            for start in range(0, len(ids), batch_size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[int, tuple[int, ...]]:
        return self.batches[index]


class Generator(L.LightningModule):
    """Draws one batch per `predict_step`."""

    allow_zero_length_dataloader_with_multiple_devices = True

    def __init__(
        self,
        base: Base,
        policy: Policy,
        prompts: list[list[int]],
        manifest: Manifest,
        missing: list[int],
        batch_size: int,
    ) -> None:
        super().__init__()
        self.base, self.policy, self.prompts = base, policy, prompts
        self.manifest, self.missing, self.batch_size = manifest, missing, batch_size

    def predict_dataloader(self) -> DataLoader[tuple[int, tuple[int, ...]]]:
        """This process's part of the missing shards; ranks are known only now."""
        mine = self.missing[self.trainer.global_rank :: self.trainer.world_size]
        work = Work(self.manifest, mine, self.batch_size)
        return DataLoader(work, batch_size=None, collate_fn=_as_it_is)  # pyright: ignore[reportArgumentType]

    def predict_step(self, batch: tuple[int, tuple[int, ...]], batch_idx: int) -> list[Trajectory]:
        """The batch's trajectories."""
        _, ids = batch
        canvas = self.base.canvas([self.prompts[i] for i in ids], self.manifest.max_new_tokens)
        noise = Noise(self.manifest.seed, ids)
        return record(canvas, decode(self.base, canvas, self.policy, noise), ids)


def _as_it_is(batch: tuple[int, tuple[int, ...]]) -> tuple[int, tuple[int, ...]]:
    """The batch; the default would turn its tuples into lists."""
    return batch


class ShardWriter(BasePredictionWriter):
    """Writes every shard as soon as its last batch is done; keeps one shard in memory."""

    store: TrajectoryStore

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self.held: list[Trajectory] = []

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: list[Trajectory],
        batch_indices: object,
        batch: tuple[int, tuple[int, ...]],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Hold the trajectories until their shard is whole."""
        shard, _ = batch
        self.held += prediction
        if len(self.held) == len(self.store.manifest.shard_ids(shard)):
            self.store.write(shard, self.held)
            self.held.clear()


def generate(
    base: str,
    output: Path,
    prompts: Prompts,
    max_new_tokens: int = 128,
    draw: Draw | None = None,
    order: Order | None = None,
    block_length: int | None = None,
    batch_size: int = 64,
    shard_size: int = 256,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    devices: int | str = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    loading: Loading | None = None,
) -> TrajectoryStore:
    """Draw exact trajectories, one token per base forward, into a folder of Parquet shards.

    Run it again to continue after an interruption. An example's content depends on the seed and
    its id alone: batch size and number of processes change nothing.

    Args:
        base: folder or hub id of the base.
        output: folder for the shards; created, or continued if it holds the same trajectories.
        prompts: what to continue.
        max_new_tokens: response columns N; also the number of forwards.
        draw: temperature, top-p and further forbidden ids.
        order: which column comes next; the lowest entropy by default.
        block_length: draw in blocks of this many columns, left to right, where the sampler is to be
            used so.
        batch_size: rows decoded together.
        shard_size: examples per file.
        seed: of all draws.
        device: where the base runs.
        dtype: torch name of the base's weights.
        revision: the hub commit.
        devices: processes on this machine, as Lightning's Trainer takes it.
        num_nodes: machines.
        strategy: Lightning strategy; `ddp` for several processes.
        loading: how the base comes into memory: device_map, bits, attention.
    """
    for name, value in (("batch_size", batch_size), ("shard_size", shard_size)):
        if value < 1:
            raise ConfigError(f"{name} is {value}, expected at least 1")
    writer = ShardWriter()
    trainer = L.Trainer(
        accelerator="gpu" if device == "cuda" else device,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        logger=False,
        use_distributed_sampler=False,
        enable_model_summary=False,
        callbacks=[RichProgressBar(), writer],
    )
    model = load_base(base, str(trainer.strategy.root_device), dtype, revision, loading)
    rows = prompts.ids(model)
    # Refuses prompts that are too long before any work is done; the longest one tells.
    model.canvas([max(rows, key=len)], max_new_tokens)
    policy = Policy(order=order or LowEntropy(), draw=draw or Draw(), block_length=block_length)
    manifest = manifest_of(model, policy, rows, max_new_tokens, shard_size, seed)
    writer.store = store = TrajectoryStore.create(output, manifest)
    missing = store.missing()
    log.info("%d of %d shards to draw", len(missing), manifest.num_shards)
    if missing:
        module = Generator(model, policy.prepare(model), rows, manifest, missing, batch_size)
        trainer.predict(module, return_predictions=False)
        if trainer.is_global_zero:
            write_provenance(output, {**asdict(manifest), "prompts": prompts, "policy": policy})
    return store


def manifest_of(
    base: Base,
    policy: Policy,
    rows: list[list[int]],
    max_new_tokens: int,
    shard_size: int,
    seed: int,
) -> Manifest:
    """What a folder of these trajectories says of itself; `policy` need not be prepared."""
    return Manifest(
        base=base.name,
        base_revision=base.revision,
        base_fingerprint=base.fingerprint,
        mask_id=base.mask_id,
        eos_id=base.eos_id,
        pad_id=base.pad_id,
        policy=repr(policy),
        seed=seed,
        max_new_tokens=max_new_tokens,
        num_examples=len(rows),
        shard_size=shard_size,
        prompts=hashlib.sha256(repr(rows).encode()).hexdigest()[:16],
    )
