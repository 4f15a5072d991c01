"""Decoding for an evaluation: every decoder on every task, resumable, scored later."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.tally import Tally
from dlmjoint.evaluation import generations, settings
from dlmjoint.evaluation.plan import Job, check, plan
from dlmjoint.evaluation.records import Generation
from dlmjoint.evaluation.tasks.base import Task
from dlmjoint.models.base import Base
from dlmjoint.provenance import write_json, write_provenance
from dlmjoint.random import Noise
from dlmjoint.trajectories.record import record
from dlmjoint.types import Step, Trajectory

log = logging.getLogger(__name__)

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
) -> None:
    """Write `run_dir/generations/<decoder>/<task>.jsonl`, and the exact samples metrics ask for.

    What an interrupted run left is kept. Raises ConfigError if `run_dir` holds generations made
    with other settings, or if something asked for cannot be measured.
    """
    decoders = with_guides_alone(decoders)
    check(decoders, tasks, seed, reference_seed)
    loaded = load_models(base, decoders)
    new = settings.settings_of(base, decoders, loaded, tasks, seed, reference_seed)
    if (run_dir / settings.FILE).exists():
        new = settings.merge(settings.load(run_dir), new, run_dir)
    jobs = plan(loaded, tasks, run_dir, seed, reference_seed)
    todo = [work for work in (_Work.of(base, job, batch_size) for job in jobs) if work.missing]
    write_json(run_dir / settings.FILE, new)
    write_provenance(run_dir, {"base": base.name, "seed": seed, "reference_seed": reference_seed})
    with _progress() as progress:
        bar = progress.add_task("evaluating", total=sum(len(work.missing) for work in todo))
        for work in todo:
            progress.update(bar, description=work.job.title)
            _decode(base, work, progress, bar)


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


@dataclass(frozen=True)
class _Work:
    """A job, its prompts in batches, and the examples not yet on disk."""

    job: Job
    batches: list[range]
    prompts: list[list[int]]
    missing: set[int]

    @classmethod
    def of(cls, base: Base, job: Job, batch_size: int) -> "_Work":
        """Raises ConfigError if a prompt is too long for the base."""
        examples = job.task.examples()
        prompts = job.task.prompt_ids(base, examples)
        base.canvas([max(prompts, key=len)], job.task.max_new_tokens, job.task.anchors)
        done = {generation.example_id for generation in generations.resume(job.path)}
        everything = range(len(examples))
        batches = [everything[i : i + batch_size] for i in everything[::batch_size]]
        return cls(job, batches, prompts, set(everything) - done)


def _decode(base: Base, work: _Work, progress: Progress, bar: TaskID) -> None:
    """Decode the batches with missing examples. A batch is decoded whole even if only some are
    missing, so that a resumed run writes what an uninterrupted one does."""
    policy = work.job.policy.prepare(base)
    todo = [batch for batch in work.batches if work.missing.intersection(batch)]
    _warm_up(base, work, policy, todo[0])
    for batch in todo:
        made = decode_batch(
            base,
            [work.prompts[i] for i in batch],
            work.job.task,
            policy,
            Noise(work.job.seed, tuple(batch)),
        )
        kept = [generation for generation in made if generation.example_id in work.missing]
        generations.append(work.job.path, kept)
        progress.advance(bar, len(kept))


def _warm_up(base: Base, work: _Work, policy: Policy, batch: range) -> None:
    """One forward and its commits, unmeasured: first calls allocate and choose kernels."""
    task = work.job.task
    canvas = base.canvas([work.prompts[i] for i in batch], task.max_new_tokens, task.anchors)
    next(decode(base, canvas, policy, Noise(work.job.seed, tuple(batch))))


def decode_batch(
    base: Base, prompts: list[list[int]], task: Task, policy: Policy, noise: Noise
) -> list[Generation]:
    """The generations of one batch under a prepared policy, cost included."""
    canvas = base.canvas(prompts, task.max_new_tokens, task.anchors)
    tally = Tally(eos_id=base.eos_id)
    steps = list(tally.timed(decode(base, canvas, policy, noise), base.device))
    trajectories = record(canvas, steps, noise.example_ids)
    cost = _row_costs(steps)
    return [
        _generation(base, trajectory, tally, *cost[row].tolist(), rows=len(prompts))
        for row, trajectory in enumerate(trajectories)
    ]


def _row_costs(steps: list[Step]) -> torch.Tensor:
    """Per row: base forwards, sampler passes, guide passes, columns computed."""
    forwards = torch.stack([step.forwards for step in steps])
    passes = torch.stack([step.passes for step in steps])
    guided = torch.stack([step.guide_passes for step in steps])
    columns = torch.stack([step.columns for step in steps])
    totals = [part.sum(0) for part in (forwards, passes, guided, columns)]
    return torch.stack(totals, dim=-1).cpu()


def _generation(
    base: Base,
    trajectory: Trajectory,
    tally: Tally,
    forwards: int,
    passes: int,
    guide_passes: int,
    columns: int,
    rows: int,
) -> Generation:
    tokens = trajectory.response.tolist()
    written = trajectory.response[trajectory.order].tolist()
    return Generation(
        example_id=trajectory.example_id,
        text=base.decode(tokens, trajectory.anchored),
        stop="eos" if set(base.end_ids).intersection(tokens[trajectory.anchored :]) else "length",
        prompt=trajectory.prompt.tolist(),
        tokens=tokens,
        order=trajectory.order.tolist(),
        log_probs=[round(value, 7) for value in trajectory.log_probs.tolist()],
        base_forwards=forwards,
        sampler_passes=passes,
        guide_passes=guide_passes,
        columns=columns,
        text_tokens=sum(token != base.eos_id for token in written),
        seconds=tally.seconds / rows,
        peak_bytes=tally.peak_bytes,
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("examples"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
