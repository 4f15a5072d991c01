"""All that a GPU must show, in a given time: forwards, passes and decoders, plain and compiled."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from torch.profiler import ProfilerActivity, profile

from dlmjoint.bench.counts import counted
from dlmjoint.bench.full_size import (
    FORWARD,
    PASS,
    fit_points,
    forward_alone,
    new_sampler,
    pass_alone,
    places,
)
from dlmjoint.bench.measure import Measured, against, free_memory, measure
from dlmjoint.bench.stand_ins.base import folder_of, is_random
from dlmjoint.bench.suite import Setting, Suite
from dlmjoint.decoding.caches.freecache import FreeCache
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early_rules.prophet import Prophet
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from dlmjoint.types import Canvas

COMPILED = ", compiled"
SYNCHRONISE = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize")
"""What the profiler calls the host's waits."""
STEP = 16
"""Windows of the training step."""

Point = tuple[int, int]
"""Columns and rows."""


class OnGPU(Suite):
    """Forward, pass, decoders and a training step; the most telling points come first."""

    name = "gpu"
    batch_sizes = (1, 16, 4, 64)
    lengths = (128, 512)

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """A record per length and batch size, and one of training; what time did not allow is said."""
        deadline = time.monotonic() + 60 * setting.minutes
        for model in setting.models:
            folder = folder_of(model, setting, note)
            base = load_base(folder, setting.device, setting.dtype)
            sampler = new_sampler(base)
            for point in places(base, setting):
                where = {"model": model, "length": point[0], "batch_size": point[1]}
                if time.monotonic() > deadline:
                    note(f"{model}: time is up, left out: length {point[0]}, batch {point[1]}")
                    yield {**where, "point": "left out"}
                    continue
                note(f"{model}: length {point[0]}, batch {point[1]}")
                yield {**where, "point": "gpu", "measured": measured(base, sampler, point, setting)}
            del base, sampler
            free_memory()
            if time.monotonic() <= deadline:
                for record in fit_points(folder, replace(setting, batch_sizes=[STEP]), note):
                    yield {"model": model, **record}
            if is_random(model):
                shutil.rmtree(folder)


def decoders(sampler: JointSampler) -> dict[str, Policy]:
    """What is decoded with."""
    joint = Joint(sampler)
    return {
        "exact": Policy(),
        "marginals K=4": Policy(4),
        "joint K=4": Policy(4, refine=joint),
        "joint K=8": Policy(8, refine=joint),
        "joint K=4, FreeCache, Prophet": Policy(
            4, refine=joint, cache=FreeCache(), early=Prophet()
        ),
    }


def measured(
    base: TransformerBase, sampler: JointSampler, point: Point, setting: Setting
) -> dict[str, dict[str, Any]]:
    """Everything at one length and batch size: decoders with their ratio to exact, the ratio that
    forwards and passes alone would give, and how often the host waits per forward."""
    length, batch_size = point
    start = base.eos_id if base.bos_id is None else base.bos_id  # any one token will do
    canvas = base.canvas([[start]] * batch_size, length - 1)
    things = _things(base, sampler, canvas, setting)
    found = measure(things, setting.repeats, base.device)
    told: dict[str, dict[str, Any]] = {}
    for suffix in ("", COMPILED):
        forward, one_pass = found[FORWARD + suffix], found[PASS + suffix]
        ideals = {} if forward is None or one_pass is None else {
            "joint K=4" + suffix: _ideals(4, forward, one_pass),
            "joint K=8" + suffix: _ideals(8, forward, one_pass),
        }  # fmt: skip
        names = [name + suffix for name in decoders(sampler)]
        told |= against({name: found[name] for name in names}, "exact" + suffix, "tokens", ideals)
        for name in (FORWARD + suffix, PASS + suffix):
            told |= against({name: found[name]}, name, name, {})
    for name in decoders(sampler):
        if found[name] is not None:
            told[name]["waits"] = waits(things[name], base) / setting.forwards
    return told


def _things(
    base: TransformerBase, sampler: JointSampler, canvas: Canvas, setting: Setting
) -> dict[str, Callable[[], int]]:
    noise = Noise(0, tuple(range(len(canvas.tokens))))

    def tokens(policy: Policy, compiled: bool) -> Callable[[], int]:
        # An end of text that is drawn by chance would stop a block base early.
        policy = replace(policy, draw=Draw(forbid=tuple(base.end_ids)))

        def some() -> int:
            _switch(base, sampler, compiled)
            steps = decode(base, canvas, policy.prepare(base), noise)
            return int(sum(step.written.sum() for step in islice(steps, setting.forwards)))

        return some

    def alone(thing: Callable[[], int], compiled: bool) -> Callable[[], int]:
        def once() -> int:
            _switch(base, sampler, compiled)
            return thing()

        return once

    things = dict[str, Callable[[], int]]()
    for suffix, compiled in (("", False), (COMPILED, True)):
        things[FORWARD + suffix] = alone(forward_alone(base, canvas), compiled)
        things[PASS + suffix] = alone(pass_alone(base, sampler, canvas), compiled)
        for name, policy in decoders(sampler).items():
            things[name + suffix] = tokens(policy, compiled)
    return things


def _switch(base: TransformerBase, sampler: JointSampler, compiled: bool) -> None:
    """Compiled forwards and passes, or plain ones."""
    base.captured = sampler.captured = False
    if compiled:
        base.capture()
        sampler.capture()


def waits(thing: Callable[[], object], base: TransformerBase) -> int:
    """How often the host waits for the device: on a GPU as its profiler says, elsewhere as dispatched
    operations do."""
    if base.device.type != "cuda":
        return counted(thing, base.vocab_size).waits
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        thing()
    return sum(event.count for event in seen.key_averages() if event.key in SYNCHRONISE)


def _ideals(commits: int, forward: Measured, one_pass: Measured) -> list[float]:
    """K tokens for one forward and K - 1 passes, over one token for one forward; per repeat."""
    return [
        commits / (1 + (commits - 1) * brief / long)
        for brief, long in zip(one_pass.seconds, forward.seconds, strict=True)
    ]
