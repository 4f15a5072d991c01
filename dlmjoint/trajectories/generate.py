"""Draw exact trajectories under `Trainer.predict`: any strategy, any number of processes and nodes.

Processes share a folder and nothing else: each claims shard after shard, draws and writes it.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from torch.utils.data import DataLoader

from dlmjoint.decoding.cache import NoCache
from dlmjoint.decoding.caches.exact_blocks import ExactBlocks
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early import EarlyCommit, Never
from dlmjoint.decoding.guides.verified import Verified
from dlmjoint.decoding.order import LowEntropy, Order
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Marginals, Trained
from dlmjoint.disk.provenance import write_provenance
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.load import Loading, load_base
from dlmjoint.random import Noise
from dlmjoint.signals import ending_on_request
from dlmjoint.trajectories.batching import Batching
from dlmjoint.trajectories.claims import Claim, Claims
from dlmjoint.trajectories.progress import Progress
from dlmjoint.trajectories.prompts import Prompts
from dlmjoint.trajectories.record import record
from dlmjoint.trajectories.store import Manifest, TrajectoryStore
from dlmjoint.types import Step, Trajectory

log = logging.getLogger(__name__)


class Generator(L.LightningModule):
    """Draws one shard per `predict_step`, whichever is free by then.

    A batch is a chance to draw a shard and names none: shards are claimed one by one, by processes
    that come and go. There are as many chances as shards are missing, enough for one process alone.
    """

    allow_zero_length_dataloader_with_multiple_devices = True

    def __init__(
        self,
        base: Base,
        policy: Policy,
        prompts: list[list[int]],
        store: TrajectoryStore,
        claims: Claims,
        batching: Batching,
        progress: Progress,
    ) -> None:
        super().__init__()
        self.base, self.policy, self.prompts = base, policy, prompts
        self.store, self.claims, self.batching, self.progress = store, claims, batching, progress

    def predict_dataloader(self) -> DataLoader[int]:
        """One chance per missing shard."""
        chances = range(len(self.store.missing()))
        return DataLoader(chances, batch_size=None)  # pyright: ignore[reportArgumentType]

    def predict_step(self, batch: int, batch_idx: int) -> int:
        """How many trajectories were drawn and written: a shard's, or none if none is left."""
        with ending_on_request():
            claim = self.claims.take(waiting=self.progress.tell)
            if claim is None:
                return 0
            with claim:
                drawn = self._shard(claim)
                self.store.write(claim.shard, drawn)
            self.progress.written()
            return len(drawn)

    def _shard(self, claim: Claim) -> list[Trajectory]:
        """All trajectories of a shard, the longest prompts first: rows decoded together are of about
        the same length, and what does not fit is noticed at once."""
        drawn: list[Trajectory] = []
        left = sorted(
            self.store.manifest.shard_ids(claim.shard), key=lambda i: -len(self.prompts[i])
        )
        while left:
            width = len(self.prompts[left[0]]) + self.store.manifest.max_new_tokens
            rows = self.batching.rows(len(left), width)
            try:
                drawn += self._batch(left[:rows], claim)
            except torch.OutOfMemoryError:
                self.batching.halve(rows, width)
                continue
            left = left[rows:]
        return drawn

    def _batch(self, ids: Sequence[int], claim: Claim) -> list[Trajectory]:
        """The trajectories of some examples, drawn together."""
        manifest = self.store.manifest
        canvas = self.base.canvas([self.prompts[i] for i in ids], manifest.max_new_tokens)
        noise = Noise(manifest.seed, tuple(ids))
        steps = decode(self.base, canvas, self.policy, noise)
        return record(canvas, self.progress.follow(_beating(steps, claim)), ids)


def _beating(steps: Iterable[Step], claim: Claim) -> Iterator[Step]:
    """The steps as they come, each a sign of life."""
    for step in steps:
        claim.beat()
        yield step


def generate(
    base: str,
    output: Path,
    prompts: Prompts,
    max_new_tokens: int = 128,
    draw: Draw | None = None,
    order: Order | None = None,
    early: EarlyCommit | None = None,
    block_length: int | None = None,
    drafts: int = 1,
    sampler: str | None = None,
    batch_size: int | Literal["auto"] = "auto",
    shard_size: int = 256,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    devices: int | str = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    loading: Loading | None = None,
    claim_timeout: float = 600.0,
) -> TrajectoryStore:
    """Draw exact trajectories, each token given all before it, into a folder of Parquet shards.

    Run it again to continue after an interruption, or several times at once to share the work: it
    returns when every shard is there. An example's content depends on the seed and its id alone:
    batch size and number of processes change nothing.

    Args:
        base: folder or hub id of the base.
        output: folder for the shards; created, or continued if it holds the same trajectories.
        prompts: what to continue.
        max_new_tokens: response columns N; also the number of forwards.
        draw: temperature, top-p and further forbidden ids.
        order: which column comes next; the lowest entropy by default.
        early: finish rows before their last forward; `EndOfText` spares the forwards behind the end of
            a text, whose columns are then filled and no longer drawn. Nothing by default: exact.
        block_length: draw in blocks of this many columns, left to right, where the sampler is to be
            used so.
        drafts: tokens drafted per base forward, of which those stay that the base itself would have
            written: the same shards, id for id, in fewer forwards over as many times the rows. Pays
            where the device has room to spare (`Verified`); 1: none.
        sampler: folder or hub id of a joint sampler that drafts; by default the base's marginals do.
        batch_size: rows decoded together; `auto`: as many as the device has memory for and use of.
            Halved where a batch does not fit.
        shard_size: examples per file: what a process claims at a time, and draws again if it dies.
        seed: of all draws.
        device: where the base runs.
        dtype: torch name of the base's weights.
        revision: the hub commit.
        devices: processes on this machine, as Lightning's Trainer takes it.
        num_nodes: machines.
        strategy: Lightning strategy; `ddp` for several processes.
        loading: how the base comes into memory: device_map, bits, attention.
        claim_timeout: seconds without a sign of life, one per base forward, after which a shard that
            another process claimed is drawn here instead.
    """
    sizes = (("batch_size", batch_size), ("shard_size", shard_size), ("drafts", drafts))
    for name, value in sizes:
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{name} is {value}, expected at least 1")
    if claim_timeout <= 0:
        raise ConfigError(f"claim_timeout is {claim_timeout}, expected more than 0 seconds")
    if sampler is not None and drafts == 1:
        raise ConfigError("a sampler is given, but drafts is 1: there is nothing for it to draft")
    progress = Progress()
    trainer = L.Trainer(
        accelerator="gpu" if device == "cuda" else device,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        logger=False,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[progress],
    )
    model = load_base(base, str(trainer.strategy.root_device), dtype, revision, loading)
    rows = prompts.ids(model)
    # Refuses prompts that are too long before any work is done; the longest one tells.
    widest = model.canvas([max(rows, key=len)], max_new_tokens).tokens.shape[1]
    batching = Batching.of(model, batch_size, widest)
    policy = Policy(
        order=order or LowEntropy(),
        draw=draw or Draw(),
        early=early or Never(),
        block_length=block_length,
        cache=NoCache() if model.attention.block_length is None else ExactBlocks(),
    )
    manifest = manifest_of(model, policy, rows, max_new_tokens, shard_size, seed)
    store = TrajectoryStore.create(output, manifest)
    progress.claims = claims = Claims(store, claim_timeout)
    missing = store.missing()
    log.info("%d of %d shards to draw", len(missing), manifest.num_shards)
    # Processes started together begin together: another run may finish the folder between their looks.
    if missing or trainer.world_size > 1:
        prepared = _drafting(policy, drafts, sampler).prepare(model)
        module = Generator(model, prepared, rows, store, claims, batching, progress)
        trainer.predict(module, return_predictions=False)
        claims.clear()
        if missing and trainer.is_global_zero:
            write_provenance(output, {**asdict(manifest), "prompts": prompts, "policy": policy})
    return store


def _drafting(policy: Policy, drafts: int, sampler: str | None) -> Policy:
    """A policy that writes the same in fewer forwards."""
    if drafts == 1:
        return policy
    refine = Marginals() if sampler is None else Trained(sampler)
    return replace(policy, commits_per_forward=drafts, refine=refine, guide=Verified())


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
