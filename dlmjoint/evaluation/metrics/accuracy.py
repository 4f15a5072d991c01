"""Accuracy of graded tasks."""

from dataclasses import dataclass

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.metrics.base import Evidence, Metric
from dlmjoint.evaluation.metrics.intervals import share
from dlmjoint.evaluation.records import Score


@dataclass(frozen=True)
class Accuracy(Metric):
    """`accuracy`: the share of right answers; `answered`: the share with an answer to read at all.
    Wilson intervals over examples."""

    def __call__(self, evidence: Evidence) -> dict[str, Score]:
        """See the class. Raises ConfigError if the task does not grade."""
        if not evidence.grades:
            raise ConfigError("accuracy needs a task that grades its examples")
        return {
            "accuracy": share([grade.correct for grade in evidence.grades]),
            "answered": share([grade.extracted is not None for grade in evidence.grades]),
        }
