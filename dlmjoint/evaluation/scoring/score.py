"""Scores of what a run decoded. Nothing is decoded again, but for the trajectory KL's replay."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dlmjoint.costs.decoded import Machine, cost
from dlmjoint.decoding.policy import Policy
from dlmjoint.disk.atomic import sweep
from dlmjoint.disk.provenance import provenance, write_json
from dlmjoint.errors import DataError, MismatchError
from dlmjoint.evaluation.metrics.base import Evidence, Metric
from dlmjoint.evaluation.metrics.values import Flags, Values
from dlmjoint.evaluation.records import Generation, Score
from dlmjoint.evaluation.running import generations, settings
from dlmjoint.evaluation.running.plan import (
    ceiling_path,
    decoder_path,
    reference_path,
    wants_ceiling,
)
from dlmjoint.evaluation.running.run import load_models, with_guides_alone
from dlmjoint.evaluation.running.sharding import Processes
from dlmjoint.evaluation.scoring.aup import Point, aup
from dlmjoint.evaluation.tasks.base import Task
from dlmjoint.models.base import Base
from dlmjoint.models.load import Loading, load_any_base

log = logging.getLogger(__name__)


def score(
    run_dir: Path,
    *,
    base: Base | None = None,
    decoders: Mapping[str, Policy] | None = None,
    tasks: Sequence[Task] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Write `run_dir/scores.json` and return its content.

    What is not given is taken from the run's own settings: the base (loaded only if a metric
    decodes again), decoders and tasks. Raises DataError if generations are missing.
    """
    made = settings.load(run_dir)
    sweep(run_dir)
    chosen = list(tasks) if tasks is not None else settings.build(list(made["tasks"].values()))
    scorer = _Scorer(run_dir, made, chosen, base, decoders, device)
    result = {
        "decoders": {name: scorer.decoder(name) for name in made["decoders"]},
        "ceiling": scorer.ceiling(),
        "pairs": scorer.pairs(),
        "aup": scorer.aup(),
        "provenance": provenance({"run_dir": run_dir, "device": device})
        | {key: made[key] for key in ("base", "seed", "reference_seed")}
        | {"tasks": {task.name: settings.describe(task) for task in chosen}},
    }
    write_json(run_dir / "scores.json", result)
    return result


def fill_cache(
    run_dir: Path, *, base: Base, decoders: Mapping[str, Policy], processes: Processes
) -> None:
    """Compute this process's share of what is costly about scoring a run and kept in its cache;
    return once all have. One process leaves everything to `score`."""
    if processes.world == 1:
        return
    made = settings.load(run_dir)
    tasks = settings.build(list(made["tasks"].values()))
    scorer = _Scorer(run_dir, made, tasks, base, decoders, processes.device)
    everything = [
        (name, task, metric)
        for task in tasks
        for metric in task.measured
        for name in made["decoders"]
        if metric.keeps_examples
    ]
    for name, task, metric in processes.share(everything):
        log.info("computing %s of %s / %s", type(metric).__name__, name, task.name)
        processes.stop_if_orphaned()
        metric.examples(scorer.evidence(name, task))
    processes.wait()


class _Scorer:
    """One scoring of a run."""

    def __init__(
        self,
        run_dir: Path,
        made: dict[str, Any],
        tasks: list[Task],
        base: Base | None,
        decoders: Mapping[str, Policy] | None,
        device: str,
    ) -> None:
        self.run_dir, self.made, self.tasks, self.device = run_dir, made, tasks, device
        self.given = None if decoders is None else with_guides_alone(decoders)
        self.base = cache(lambda: self._checked(base or self._load_base()))
        self.machine = Machine.of(made)
        self.values: dict[str, dict[str, dict[str, Values]]] = {task.name: {} for task in tasks}
        """By task, decoder and metric."""
        self.points: dict[str, dict[str, Point]] = {task.name: {} for task in tasks}
        """By task and decoder."""

    def decoder(self, name: str) -> dict[str, Any]:
        """A decoder's part of scores.json."""
        scores, lines = {}, []
        for task in self.tasks:
            log.info("scoring %s / %s", name, task.name)
            evidence = self.evidence(name, task)
            scores[task.name] = _measure(task.measured, evidence)
            self._keep(name, task, evidence)
            self._write_grades(name, task, evidence)
            lines += evidence.generations
        policy = self.made["decoders"][name]["policy"]
        return {"policy": policy, "tasks": scores, "cost": cost(lines, self.machine)}

    def ceiling(self) -> dict[str, Any]:
        """What a perfect decoder would get: a second exact sample against the first."""
        found = {}
        for task in filter(wants_ceiling, self.tasks):
            policies = {name: self._policy(name) for name in self.made["decoders"]}
            path = ceiling_path(self.run_dir, policies, task)
            evidence = self._evidence(None, task, _complete(path, task))
            metrics = [metric for metric in task.measured if metric.has_ceiling]
            found[task.name] = _measure(metrics, evidence)
        return found

    def pairs(self) -> dict[str, Any]:
        """Every decoder against the first, once all were scored; p-values are not corrected for how
        many there are. What is to be shown of a faster decoder is how far it is from the exact one,
        so name that one first."""
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for task, measured in self.values.items():
            first, *others = measured
            for metric, values in measured[first].items():
                for other in others:
                    different = values.against(measured[other][metric])
                    told = asdict(different) | {"a": first, "b": other}
                    found.setdefault(task, {}).setdefault(metric, []).append(told)
        return found

    def aup(self) -> dict[str, Any]:
        """Accuracy under parallelism, where accuracy was measured."""
        found = {
            task.name: aup(self.points[task.name], self._exact(task))
            for task in self.tasks
            if self.points[task.name]
        }
        return {task: families for task, families in found.items() if families}

    def _exact(self, task: Task) -> str | None:
        """The decoder that is the task's exact policy, described as that is."""
        exact = settings.describe(task.apply(task.exact))
        drawn = settings.describe(task.draw)
        for name, decoder in self.made["decoders"].items():
            policy = decoder["policy"]
            changed = {} if task.draw is None else {"draw": drawn}
            if policy | {"init_args": policy["init_args"] | changed} == exact:
                return name
        return None

    def _keep(self, name: str, task: Task, evidence: Evidence) -> None:
        """What decoders are compared by, once all are there."""
        values = {
            metric: found
            for each in task.measured
            for metric, found in each.examples(evidence).items()
        }
        self.values[task.name][name] = values
        accuracy = values.get("accuracy")
        if isinstance(accuracy, Flags):
            lines = evidence.generations
            self.points[task.name][name] = Point(
                np.array(accuracy.values, dtype=float),
                np.array([len(line.order) for line in lines], dtype=float),
                np.array([line.base_forwards for line in lines], dtype=float),
            )

    def evidence(self, decoder: str, task: Task) -> Evidence:
        """What a metric may look at of a decoder."""
        some = _complete(decoder_path(self.run_dir, decoder, task), task)
        return self._evidence(decoder, task, some)

    def _evidence(self, decoder: str | None, task: Task, some: list[Generation]) -> Evidence:
        examples = task.examples()
        grades = [task.grade(e, g.text) for e, g in zip(examples, some, strict=True)]
        wanted = any(metric.needs_reference for metric in task.measured)
        reference = _complete(reference_path(self.run_dir, task), task) if wanted else []
        return Evidence(
            generations=some,
            grades=[grade for grade in grades if grade is not None],
            prompts=[task.shown(example) for example in examples],
            reference=reference,
            replay=self._replay(decoder, task),
            identity=self._identity(decoder, task),
            cache=self.run_dir / "cache",
            device=self.device,
        )

    def _replay(self, decoder: str | None, task: Task) -> Callable[[], tuple[Base, Policy]]:
        """How a metric gets the base and the policy, loaded only then."""

        def load() -> tuple[Base, Policy]:
            base = self.base()
            if decoder is None:
                return base, task.apply(task.exact).prepare(base)
            policy = self._policy(decoder)
            loaded = load_models(base, {decoder: policy})[decoder]
            if settings.weights_hash(loaded) != self.made["decoders"][decoder]["weights"]:
                raise MismatchError(
                    f"the sampler of {decoder} is not the one this run decoded with: "
                    "run the evaluation again, into another run_dir"
                )
            return base, task.apply(loaded).prepare(base)

        return load

    def _identity(self, decoder: str | None, task: Task) -> str:
        policy = "exact" if decoder is None else self.made["decoders"][decoder]
        parts = [self.made["base"], policy, settings.describe(task.draw)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _policy(self, name: str) -> Policy:
        if self.given is not None and name in self.given:
            return self.given[name]
        return settings.build(self.made["decoders"][name]["policy"])

    def _load_base(self) -> Base:
        """The base by the name the run had it under."""
        base = self.made["base"]
        folder = Path(base["name"]).is_dir()
        revision = None if folder else base["revision"]
        loading = Loading(bits=base.get("bits"))  # runs from before bits have none
        return load_any_base(base["name"], self.device, base["dtype"], revision, loading)

    def _checked(self, base: Base) -> Base:
        if base.fingerprint != self.made["base"]["fingerprint"]:
            raise MismatchError(
                f"{base.name} (weights {base.fingerprint}) is not the base of {self.run_dir} "
                f"(weights {self.made['base']['fingerprint']})"
            )
        return base

    def _write_grades(self, decoder: str, task: Task, evidence: Evidence) -> None:
        """What was read from every answer and why it is right or wrong."""
        if evidence.grades:
            ids = [generation.example_id for generation in evidence.generations]
            grades = [
                {"example_id": i, **settings.describe(g)["init_args"]}
                for i, g in zip(ids, evidence.grades, strict=True)
            ]
            write_json(self.run_dir / "grades" / decoder / f"{task.name}.json", grades)


def _measure(metrics: Sequence[Metric], evidence: Evidence) -> dict[str, Any]:
    found: dict[str, Score] = {}
    for metric in metrics:
        found |= metric(evidence)
    return {name: value.to_json() for name, value in found.items()}


def _complete(path: Path, task: Task) -> list[Generation]:
    """The generations of the task's examples, in their order."""
    by_id = {generation.example_id: generation for generation in generations.read(path)}
    present = [by_id[i] for i in range(task.n) if i in by_id]
    if len(present) < task.n:
        raise DataError(
            f"{path} has {len(present)} of {task.n} generations: run the evaluation again"
        )
    return present
