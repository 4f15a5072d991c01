"""Loading, decoding and training of a base at its own size, with random weights if need be."""

import shutil
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from dlmjoint.bench.measure import Measured, host_peak_bytes, measure
from dlmjoint.bench.random_base import published_config, published_names, write_random_base
from dlmjoint.bench.suite import Setting, Suite
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.decoding.tally import clock
from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.module import Distillation
from dlmjoint.models.files import torch_dtype
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from dlmjoint.trajectories.store import Manifest, TrajectoryStore
from dlmjoint.types import Canvas, Trajectory

DECODERS = {
    "exact": (1, False),
    "marginals-k4": (4, False),
    "joint-k4": (4, True),
    "joint-k8": (8, True),
}
"""Tokens per forward, and whether the sampler is used."""
FIT_LENGTH = 128
"""Columns of the training step, as in ADJUST's unconditional recipe; fewer if the base has fewer."""
WINDOW = 4
FIT_STEPS = 3
"""Training steps made; the first is not measured."""


class FullSize(Suite):
    """Load, exact and parallel decoding, one training step."""

    name = "full-size"

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """A record for the loading of each model, for each batch size and length, and for training."""
        for model in setting.models:
            folder = _folder(model, setting, note)
            note(f"loading {model}")
            base, loaded = _load(folder, setting)
            yield {"model": model, "point": "load", **loaded}
            for record in _decode_points(base, setting, note):
                yield {"model": model, "point": "decode", **record}
            del base  # training loads its own
            if setting.device.startswith("cuda"):
                torch.cuda.empty_cache()
            note(f"{model}: {FIT_STEPS} training steps")
            trained = _or_out_of_memory(_training, folder, setting)
            yield {"model": model, "point": "fit", **trained}
            if model in published_names():
                shutil.rmtree(folder)


def _decode_points(
    base: TransformerBase, setting: Setting, note: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    sampler = JointSampler.from_base(base).eval()
    nn.Module.to(sampler, base.dtype)
    for length in setting.lengths:
        for batch_size in setting.batch_sizes:
            note(f"{base.name}: batch {batch_size}, length {length}")
            found = _or_out_of_memory(_decoding, base, sampler, batch_size, length, setting)
            yield {"batch_size": batch_size, "length": length, **found}


def _folder(model: str, setting: Setting, note: Callable[[str], None]) -> Path:
    """The model's folder or hub id; random weights are written for a published name."""
    if model not in published_names():
        return Path(model)
    folder = setting.workdir / model
    note(f"writing random weights of {model}'s size to {folder}")
    write_random_base(folder, published_config(model), torch_dtype(setting.dtype), setting.device)
    return folder


def _load(folder: Path, setting: Setting) -> tuple[TransformerBase, dict[str, Any]]:
    before, device = host_peak_bytes(), torch.device(setting.device)
    started = clock(device)
    base = load_base(folder, setting.device, setting.dtype)
    seconds = clock(device) - started
    size = sum(p.numel() * p.element_size() for p in base.network.parameters())
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return base, {
        "seconds": seconds,
        "bytes": size,
        "host_bytes_above_before": host_peak_bytes() - before,
        "peak_bytes": on_device,
    }


def _or_out_of_memory(measured: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What was measured, or that the device's memory did not hold it."""
    try:
        return measured(*arguments)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"out_of_memory": True}


def _decoding(
    base: TransformerBase, sampler: JointSampler, batch_size: int, length: int, setting: Setting
) -> dict[str, Any]:
    """Tokens per second of each decoder over a few forwards, and a forward and a pass alone."""
    start = base.eos_id if base.bos_id is None else base.bos_id
    canvas = base.canvas([[start]] * batch_size, length - 1)

    def tokens(policy: Policy) -> Callable[[], int]:
        prepared = policy.prepare(base)

        def some() -> int:
            steps = decode(base, canvas, prepared, Noise(0, tuple(range(batch_size))))
            commits = [
                commit for step in islice(steps, setting.forwards) for commit in step.commits
            ]
            return sum(len(commit.rows) for commit in commits)

        return some

    things = {
        name: tokens(Policy(k, refine=Joint(sampler)) if joint else Policy(k))
        for name, (k, joint) in DECODERS.items()
    }
    things |= {"base forward": _forward(base, canvas), "sampler pass": _pass(base, sampler, canvas)}
    found = measure(things, setting.repeats, base.device)
    exact = {name: found["exact"] if name in DECODERS else None for name in found}
    return {"measured": {name: one.to_json(exact[name]) for name, one in found.items()}}


def _forward(base: TransformerBase, canvas: Canvas) -> Callable[[], int]:
    @torch.inference_mode()
    def once() -> int:
        base.predict(canvas)
        return 1

    return once


def _pass(base: TransformerBase, sampler: JointSampler, canvas: Canvas) -> Callable[[], int]:
    """One pass of the layer, its logits not included."""
    with torch.inference_mode():
        hidden = base.predict(canvas).hidden

    @torch.inference_mode()
    def once() -> int:
        sampler(base.embed(canvas.tokens), hidden, canvas.positions, canvas.attends)
        return 1

    return once


class _StepTimes(L.Callback):
    """Seconds of every training step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.started = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Read the clock."""
        self.started = clock(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Read it again."""
        self.seconds.append(clock(pl_module.device) - self.started)


def _training(folder: Path, setting: Setting) -> dict[str, Any]:
    """Real training steps on trajectories of random tokens: the largest batch size asked for."""
    device = torch.device(setting.device)
    module = Distillation(str(folder), dtype=setting.dtype, depth=WINDOW - 1)
    batch_size = max(setting.batch_sizes)
    store = _random_trajectories(module.base, setting.workdir / f"trajectories-{time.time_ns()}")
    times = _StepTimes()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer = L.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed"
        if setting.dtype == "bfloat16" and device.type == "cuda"
        else "32-true",
        max_steps=FIT_STEPS,
        max_epochs=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        default_root_dir=store.folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[times],
    )
    trainer.fit(module, TrajectoryData(store.folder, batch_size=batch_size, window=WINDOW))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    trained = sum(p.numel() for p in module.sampler.parameters() if p.requires_grad)
    shutil.rmtree(store.folder)
    return {
        "batch_size": batch_size,
        "length": store.manifest.max_new_tokens + 1,
        "trained_parameters": trained,
        "measured": {"training step": Measured(times.seconds[1:], 1, peak).to_json()},
    }


def _random_trajectories(base: TransformerBase, folder: Path) -> TrajectoryStore:
    """A folder of trajectories whose tokens and orders are random."""
    generator = torch.Generator().manual_seed(0)
    length = min(FIT_LENGTH, base.max_length) - 1
    manifest = Manifest(
        base=base.name,
        base_revision=base.revision,
        base_fingerprint=base.fingerprint,
        mask_id=base.mask_id,
        eos_id=base.eos_id,
        pad_id=base.pad_id,
        policy="random tokens",
        seed=0,
        max_new_tokens=length,
        num_examples=8,
        shard_size=8,
        prompts="random",
    )
    store = TrajectoryStore.create(folder, manifest)
    store.write(
        0,
        [
            Trajectory(
                example_id=example,
                prompt=torch.tensor([base.eos_id]),
                response=torch.randint(
                    min(base.vocab_size, 1000) // 2, (length,), generator=generator
                ),
                order=torch.randperm(length, generator=generator),
                log_probs=torch.zeros(length, dtype=torch.float64),
            )
            for example in range(8)
        ],
    )
    return store
