"""Accuracy of graded tasks."""

from dataclasses import dataclass

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.metrics.base import Evidence, ExampleMetric
from dlmjoint.evaluation.metrics.values import Flags, Values


@dataclass(frozen=True)
class Accuracy(ExampleMetric):
    """`accuracy`: the share of right answers; `answered`: the share with an answer to read at all.
    Wilson intervals over examples."""

    def examples(self, evidence: Evidence) -> dict[str, Values]:
        """See the class. Raises ConfigError if the task does not grade."""
        if not evidence.grades:
            raise ConfigError("accuracy needs a task that grades its examples")
        return {
            "accuracy": Flags([grade.correct for grade in evidence.grades]),
            "answered": Flags([grade.extracted is not None for grade in evidence.grades]),
        }
