"""Decoding for an evaluation: every decoder on every task, resumable, shared among processes."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.disk.atomic import sweep
from dlmjoint.disk.provenance import write_json, write_provenance
from dlmjoint.evaluation.running import generations, settings
from dlmjoint.evaluation.running.batch import decode_batch
from dlmjoint.evaluation.running.plan import Job, check, plan
from dlmjoint.evaluation.running.sharding import Processes
from dlmjoint.evaluation.tasks.base import Task
from dlmjoint.models.base import Base, Texts
from dlmjoint.random import Noise
from dlmjoint.types import Canvas

REFERENCE_SEED = 1000


def run(
    base: Base,
    decoders: Mapping[str, Policy],
    tasks: Sequence[Task],
    run_dir: Path,
    *,
    seed: int = 0,
    reference_seed: int = REFERENCE_SEED,
    batch_size: int = 64,
    processes: Processes | None = None,
) -> None:
    """Write `run_dir/generations/<decoder>/<task>.jsonl`, and the exact samples metrics ask for.

    What an interrupted run left is kept. Batches are the same whoever decodes them, and a batch is
    decoded whole even if only some of it is missing: so every number of processes, and every
    interruption, gives the same files, times aside. Raises ConfigError if `run_dir` holds
    generations made with other settings, or if something asked for cannot be measured.
    """
    processes = processes or Processes()
    decoders = with_guides_alone(decoders)
    check(decoders, tasks, seed, reference_seed)
    loaded = load_models(base, decoders)
    new = settings.settings_of(base, decoders, loaded, tasks, seed, reference_seed)
    if (run_dir / settings.FILE).exists():
        new = settings.merge(settings.load(run_dir), new, run_dir)
    starts = {task.name: _starts(base, task) for task in tasks}
    for metric in (metric for task in tasks for metric in task.measured):
        metric.fits(base)
    jobs = plan(loaded, tasks, run_dir, seed, reference_seed)
    processes.wait()  # all have read the settings: what is refused, is refused by all
    if processes.first:
        sweep(run_dir)
        write_json(run_dir / settings.FILE, new)
        asked = {"base": base.name, "seed": seed, "reference_seed": reference_seed}
        write_provenance(run_dir, asked | {"processes": processes.world})
        for job in jobs:
            generations.gather(job.path)
    processes.wait()
    missing = [b for job in jobs for b in _missing(job, starts[job.task.name], batch_size)]
    _decode(base, processes.share(missing), processes)
    processes.wait()
    if processes.first:
        for job in jobs:
            generations.gather(job.path)
    processes.wait()


def load_models(base: Base, decoders: Mapping[str, Policy]) -> dict[str, Policy]:
    """The decoders with their samplers and guides loaded and checked against the base, each once."""
    loaded: dict[object, Any] = {}
    found = {}
    for name, policy in decoders.items():
        heavy = {"refine": policy.refine, "guide": policy.guide, "forward": policy.forward}
        for part in heavy.values():
            if part not in loaded:
                loaded[part] = part.prepare(base)
        found[name] = replace(policy, **{field: loaded[part] for field, part in heavy.items()})
    return found


def with_guides_alone(decoders: Mapping[str, Policy]) -> dict[str, Policy]:
    """The decoders and, for every guide among them, the guide by itself: a guided result is the
    guide's as much as the base's."""
    found = dict(decoders)
    for policy in decoders.values():
        fields = policy.guide.alone(policy.draw)
        if fields is not None and Policy(**fields) not in found.values():  # pyright: ignore[reportArgumentType]
            known = sum(name.startswith("guide-alone") for name in found)
            found["guide-alone" + (f"-{known + 1}" if known else "")] = Policy(**fields)  # pyright: ignore[reportArgumentType]
    return found


class _Start(NamedTuple):
    """What an example's canvas begins with."""

    prompt: list[int]
    anchors: Texts


@dataclass(frozen=True)
class _Batch:
    """Examples of a job that are decoded together, and those of them that are not on disk yet."""

    job: Job
    ids: range
    starts: list[_Start]
    missing: frozenset[int]

    def canvas(self, base: Base) -> Canvas:
        """What decoding begins with."""
        return _canvas(base, self.job.task, self.starts)


def _starts(base: Base, task: Task) -> list[_Start]:
    """Raises ConfigError if a prompt is too long for the base, or anchors do not fit."""
    examples = task.examples()
    prompts, anchors = task.prompt_ids(base, examples), task.anchors_of(base, examples)
    starts = [_Start(prompt, own) for prompt, own in zip(prompts, anchors, strict=True)]
    _canvas(base, task, [max(starts, key=lambda start: len(start.prompt))])
    return starts


def _canvas(base: Base, task: Task, starts: list[_Start]) -> Canvas:
    prompts, anchors = [start.prompt for start in starts], [start.anchors for start in starts]
    return base.canvas(prompts, task.max_new_tokens, anchors)


def _missing(job: Job, starts: list[_Start], batch_size: int) -> list[_Batch]:
    """The job's batches in which an example is missing."""
    everything = range(len(starts))
    missing = set(everything) - {generation.example_id for generation in generations.read(job.path)}
    batches = [everything[first : first + batch_size] for first in everything[::batch_size]]
    return [
        _Batch(job, ids, [starts[i] for i in ids], frozenset(missing.intersection(ids)))
        for ids in batches
        if missing.intersection(ids)
    ]


def _decode(base: Base, batches: Sequence[_Batch], processes: Processes) -> None:
    """Decode this process's batches. The first process shows how far its own share is: shares are
    dealt batch by batch, so the others are about as far."""
    writer = uuid.uuid4().hex
    company = f" (process 1 of {processes.world})" if processes.world > 1 else ""
    with _progress(processes.first) as progress:
        bar = progress.add_task("evaluating", total=sum(len(batch.missing) for batch in batches))
        for _, group in groupby(batches, key=lambda batch: batch.job.path):
            todo = list(group)
            progress.update(bar, description=todo[0].job.title + company)
            policy = todo[0].job.policy.prepare(base)
            _warm_up(base, todo[0], policy)
            for batch in todo:
                processes.stop_if_orphaned()
                noise = Noise(batch.job.seed, tuple(batch.ids))
                made = decode_batch(base, batch.canvas(base), policy, noise)
                kept = [generation for generation in made if generation.example_id in batch.missing]
                generations.append(generations.part(batch.job.path, writer), kept)
                progress.advance(bar, len(kept))
        if company:
            progress.update(bar, description="waiting for the other processes")


def _warm_up(base: Base, batch: _Batch, policy: Policy) -> None:
    """One forward and its commits, unmeasured: first calls allocate and choose kernels."""
    noise = Noise(batch.job.seed, tuple(batch.ids))
    next(decode(base, batch.canvas(base), policy, noise))


def _progress(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("examples"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )
