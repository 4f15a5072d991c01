"""Prompts whose answers are right or wrong."""

from dataclasses import dataclass

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.metrics.accuracy import Accuracy
from dlmjoint.evaluation.metrics.base import Metric
from dlmjoint.evaluation.records import Example
from dlmjoint.evaluation.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class Graded(Task):
    """A task that grades every text, and may write something before every prompt."""

    opening: str = ""
    """Written before every prompt, such as the beginning-of-text token; not in a chat."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n is {self.n}, expected 1 or more")

    def standard_metrics(self) -> list[Metric]:
        """Accuracy."""
        return [Accuracy()]

    def shown(self, example: Example) -> str:
        """The prompt without its opening."""
        return example.prompt.removeprefix(self.opening)
