"""Loading, decoding and training of a base at its own size, with random weights if need be."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from dlmjoint.bench.measure import (
    Measured,
    against,
    device_peak_bytes,
    free_memory,
    host_peak_bytes,
    measure,
    restart_device_peak,
    restart_host_peak,
    within_memory,
)
from dlmjoint.bench.stand_ins.base import folder_of, is_random
from dlmjoint.bench.stand_ins.trajectories import random_store
from dlmjoint.bench.suite import Setting, Suite
from dlmjoint.clock import clock
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.module import Distillation
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from dlmjoint.trajectories.store import TrajectoryStore
from dlmjoint.types import Canvas

DECODERS = {
    "exact": (1, False),
    "marginals-k4": (4, False),
    "joint-k4": (4, True),
    "joint-k8": (8, True),
}
"""Tokens per forward, and whether the sampler is used."""
FORWARD, PASS = "base forward", "sampler pass"
"""What a decoder is made of, measured alone."""
LENGTH = 128
"""Columns of the training step, as in ADJUST's unconditional recipe; fewer if the base has fewer."""
WINDOW = 4
"""States per window: the sampler is unrolled three passes deep, as K = 4 needs."""
EXAMPLES = 8
"""Trajectories; windows are drawn from them as often as a batch needs."""


class FullSize(Suite):
    """Load, exact and parallel decoding, training steps."""

    name = "full-size"
    batch_sizes = (1, 4, 16)
    lengths = (128, 512)
    full_size = ("dream-7b", "llada-8b")

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """A record for the loading of each model, for each batch size and length, and for training."""
        for model in setting.models:
            folder = folder_of(model, setting, note)
            for record in _points(folder, setting, note):
                yield {"model": model, **record}
            if is_random(model):
                shutil.rmtree(folder)  # room for the next one


def _points(
    folder: Path, setting: Setting, note: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    note(f"loading {folder.name}")
    base, loaded = _load(folder, setting)
    yield {"point": "load", **loaded}
    if base is None:
        return
    yield from _decode_points(base, folder.name, setting, note)
    del base  # training loads its own
    free_memory()
    yield from fit_points(folder, setting, note)


def _load(folder: Path, setting: Setting) -> tuple[TransformerBase | None, dict[str, Any]]:
    """The base, None if the device's memory does not hold it; seconds and bytes of loading it."""
    device = torch.device(setting.device)
    host_before = restart_host_peak()
    restart_device_peak(device)
    started = clock(device)
    base = within_memory(lambda: load_base(folder, setting.device, setting.dtype))
    seconds = clock(device) - started
    if base is None:
        return None, {"out_of_memory": True}
    return base, {
        "seconds": seconds,
        "bytes": sum(p.numel() * p.element_size() for p in base.network.parameters()),
        "host_bytes_above_before": None if host_before is None else host_peak_bytes() - host_before,
        "peak_bytes": device_peak_bytes(device),
    }


def _decode_points(
    base: TransformerBase, name: str, setting: Setting, note: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    sampler = within_memory(lambda: new_sampler(base))
    if sampler is None:
        yield {"point": "decode", "out_of_memory": True}
        return
    for length, asked in lengths_held(setting.lengths, base.max_length).items():
        if asked != [length]:
            note(f"{name}: length {asked} cut to {length}, all it holds")
        for batch_size in setting.batch_sizes:
            note(f"{name}: batch {batch_size}, length {length}")
            found = _decoding(base, sampler, batch_size, length, setting)
            yield {
                "point": "decode",
                "batch_size": batch_size,
                "length": length,
                "lengths_asked": asked,
                "measured": described(found),
            }


def new_sampler(base: TransformerBase) -> JointSampler:
    """An untrained sampler in the base's dtype, as decoding loads a trained one."""
    sampler = JointSampler.from_base(base).eval()
    nn.Module.to(sampler, base.dtype)
    return sampler


def lengths_held(lengths: list[int], most: int) -> dict[int, list[int]]:
    """The lengths a base of `most` columns can be measured at, each with those that were asked."""
    held: dict[int, list[int]] = {}
    for asked in lengths:
        held.setdefault(min(asked, most), []).append(asked)
    return held


def places(base: TransformerBase, setting: Setting) -> Iterator[tuple[int, int]]:
    """The lengths a base can be measured at, each with every batch size."""
    return product(lengths_held(setting.lengths, base.max_length), setting.batch_sizes)


def _decoding(
    base: TransformerBase, sampler: JointSampler, batch_size: int, length: int, setting: Setting
) -> dict[str, Measured | None]:
    """Tokens of each decoder over a few forwards, and a forward and a pass alone."""
    start = base.eos_id if base.bos_id is None else base.bos_id  # any one token will do
    canvas = base.canvas([[start]] * batch_size, length - 1)

    def tokens(policy: Policy) -> Callable[[], int]:
        # An end of text that is drawn by chance would stop a block base early.
        prepared = replace(policy, draw=Draw(forbid=tuple(base.end_ids))).prepare(base)

        def some() -> int:
            steps = decode(base, canvas, prepared, Noise(0, tuple(range(batch_size))))
            return int(sum(step.written.sum() for step in islice(steps, setting.forwards)))

        return some

    things = {
        name: tokens(Policy(k, refine=Joint(sampler)) if joint else Policy(k))
        for name, (k, joint) in DECODERS.items()
    }
    things |= {FORWARD: forward_alone(base, canvas), PASS: pass_alone(base, sampler, canvas)}
    return measure(things, setting.repeats, base.device)


def forward_alone(base: TransformerBase, canvas: Canvas) -> Callable[[], int]:
    """One forward of the base, without logits."""

    @torch.inference_mode()
    def once() -> int:
        base.predict(canvas)
        return 1

    return once


def pass_alone(base: TransformerBase, sampler: JointSampler, canvas: Canvas) -> Callable[[], int]:
    """One pass of the layer, without logits."""

    @torch.inference_mode()
    def once() -> int:
        embedding = base.embed(canvas.tokens)
        # The time does not depend on the values: the embedding stands for the hidden states.
        sampler(embedding, embedding, canvas.positions, canvas.attends)
        return 1

    return once


def described(found: Mapping[str, Measured | None]) -> dict[str, dict[str, Any]]:
    """What was measured as JSON: decoders with their ratio to exact, the ratio they would have if
    a decoding were its forwards and passes alone, and the share of it reached."""
    forward, one_pass = found[FORWARD], found[PASS]
    ideals = {}
    if forward is not None and one_pass is not None:
        ideals = {name: _ideals(*made, forward, one_pass) for name, made in DECODERS.items()}
    # Of the memory the peak is told, weights included: what a device must hold.
    whole = {name: one and replace(one, extra_bytes=None) for name, one in found.items()}
    decoders = {name: one for name, one in whole.items() if name in DECODERS}
    told = against(decoders, "exact", "tokens", ideals)
    for name in (FORWARD, PASS):
        told |= against({name: whole[name]}, name, name, {})
    return told


def _ideals(commits: int, joint: bool, forward: Measured, one_pass: Measured) -> list[float]:
    """K tokens for one forward and K - 1 passes, over one token for one forward; per repeat."""
    passes = commits - 1 if joint else 0
    return [
        commits / (1 + passes * brief / long)
        for brief, long in zip(one_pass.seconds, forward.seconds, strict=True)
    ]


class _StepTimes(L.Callback):
    """Seconds of every training step, optimizer included."""

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


def fit_points(
    folder: Path, setting: Setting, note: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """A record per batch size: seconds of a training step, peak memory, parameters trained."""
    module = Distillation(str(folder), dtype=setting.dtype, depth=WINDOW - 1)
    length = min(LENGTH, module.base.max_length) - 1
    store = random_store(module.base, setting.workdir / "trajectories", EXAMPLES, length)
    trained = sum(p.numel() for p in module.sampler.parameters() if p.requires_grad)
    for batch_size in setting.batch_sizes:
        note(f"{folder.name}: {setting.repeats} training steps of {batch_size} windows")
        step = within_memory(lambda size=batch_size: _train(module, store, size, setting))
        told = {"out_of_memory": True} if step is None else step.to_json("training step")
        yield {
            "point": "fit",
            "batch_size": batch_size,
            "length": store.manifest.max_new_tokens + 1,
            "trained_parameters": trained,
            "measured": {"training step": told},
        }
    shutil.rmtree(store.folder)


def _train(
    module: Distillation, store: TrajectoryStore, batch_size: int, setting: Setting
) -> Measured:
    """Real training steps, after one that is not measured."""
    device, times = torch.device(setting.device), _StepTimes()
    on_gpu = device.type == "cuda"
    restart_device_peak(device)
    trainer = L.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[device.index or 0] if on_gpu else 1,
        precision="bf16-mixed" if on_gpu and setting.dtype == "bfloat16" else "32-true",
        max_steps=setting.repeats + 1,
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
    return Measured(times.seconds[1:], 1, device_peak_bytes(device))
