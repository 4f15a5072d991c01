"""Accuracy of graded tasks."""

from dataclasses import dataclass

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.metrics.base import Evidence, ExampleMetric
from dlmjoint.evaluation.metrics.values import Flags, Values


@dataclass(frozen=True)
class Accuracy(ExampleMetric):
    """`accuracy`: the share of right answers; `answered`: the share with an answer to read at all;
    `accuracy_NAME`: the share that the reader NAME, not ours, calls right, where a task has some.
    Wilson intervals over examples."""

    def examples(self, evidence: Evidence) -> dict[str, Values]:
        """See the class. Raises ConfigError if the task does not grade."""
        if not evidence.grades:
            raise ConfigError("accuracy needs a task that grades its examples")
        found: dict[str, Values] = {
            "accuracy": Flags([grade.correct for grade in evidence.grades]),
            "answered": Flags([grade.extracted is not None for grade in evidence.grades]),
        }
        for name in evidence.grades[0].readings:
            flags = Flags([grade.readings[name] for grade in evidence.grades])
            found[f"accuracy_{name.replace('-', '_')}"] = flags
        return found
