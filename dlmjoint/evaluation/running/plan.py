"""Which files an evaluation consists of, and what is written into each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.running.settings import describe
from dlmjoint.evaluation.tasks.base import Task


@dataclass(frozen=True)
class Job:
    """One file of generations."""

    title: str
    path: Path
    policy: Policy
    task: Task
    seed: int


def plan(
    decoders: Mapping[str, Policy],
    tasks: Sequence[Task],
    run_dir: Path,
    seed: int,
    reference_seed: int,
) -> list[Job]:
    """Every file of the run; references before what is compared with them.

    The ceiling is a second exact sample: an exact decoder of the run serves as it, if there is one.
    """
    jobs = []
    for task in tasks:
        exact = task.apply(task.exact)
        if any(metric.needs_reference for metric in task.measured):
            path = reference_path(run_dir, task)
            jobs.append(Job(f"reference / {task.name}", path, exact, task, reference_seed))
        for name, policy in decoders.items():
            path = decoder_path(run_dir, name, task)
            jobs.append(Job(f"{name} / {task.name}", path, task.apply(policy), task, seed))
        path = ceiling_path(run_dir, decoders, task)
        if wants_ceiling(task) and path not in {job.path for job in jobs}:
            jobs.append(Job(f"ceiling / {task.name}", path, exact, task, reference_seed + 1))
    return jobs


def check(
    decoders: Mapping[str, Policy], tasks: Sequence[Task], seed: int, reference_seed: int
) -> None:
    """Refuse what cannot work before anything is loaded or decoded."""
    names = [task.name for task in tasks]
    if not decoders or not tasks:
        raise ConfigError("an evaluation needs at least one decoder and one task")
    if len(set(names)) < len(names):
        raise ConfigError(f"two tasks have one name: {names}; give one of them another `name`")
    for name in [*decoders, *names]:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise ConfigError(f"{name!r} names files: use letters, digits and . + - _ only")
    if seed == reference_seed:
        raise ConfigError(
            f"seed and reference_seed are both {seed}: the references would not be independent"
        )
    for task in tasks:
        if task.n < 1:
            raise ConfigError(f"task {task.name} has n={task.n}, expected at least 1")
        if task.exact.commits_per_forward != 1:
            raise ConfigError(f"task {task.name}: `exact` must have commits_per_forward 1")
        applied = {name: task.apply(policy) for name, policy in decoders.items()}
        for metric in task.measured:
            metric.check(task.n, applied, task.apply(task.exact))


def limited(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    """The tasks with no more than `limit` examples each, the first ones. Raises ConfigError if that
    is none."""
    if limit is None:
        return list(tasks)
    if limit < 1:
        raise ConfigError(f"limit is {limit}, expected at least 1 example")
    return [replace(task, n=min(task.n, limit)) for task in tasks]


def wants_ceiling(task: Task) -> bool:
    """Does any metric of the task compare with a second exact sample?"""
    return any(metric.has_ceiling for metric in task.measured)


def decoder_path(run_dir: Path, decoder: str, task: Task) -> Path:
    """A decoder's generations."""
    return run_dir / "generations" / decoder / f"{task.name}.jsonl"


def reference_path(run_dir: Path, task: Task) -> Path:
    """The exact samples decoders are compared with."""
    return run_dir / "reference" / f"{task.name}.jsonl"


def ceiling_path(run_dir: Path, decoders: Mapping[str, Policy], task: Task) -> Path:
    """The exact samples of another seed."""
    exact = describe(task.apply(task.exact))
    for name, policy in decoders.items():
        if describe(task.apply(policy)) == exact:
            return decoder_path(run_dir, name, task)
    return run_dir / "ceiling" / f"{task.name}.jsonl"
