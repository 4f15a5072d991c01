"""The contract of a metric."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dlmjoint.decoding.policy import Policy
from dlmjoint.evaluation.metrics.values import Values
from dlmjoint.evaluation.records import Generation, Grade, Score
from dlmjoint.models.base import Base


@dataclass(frozen=True)
class Evidence:
    """What a metric may look at: one decoder's generations for one task, and their context."""

    generations: list[Generation]
    grades: list[Grade]
    """One per generation; empty where the task does not grade."""
    prompts: list[str]
    """What each text continues, as people read it."""
    reference: list[Generation]
    """Independent exact samples; empty where no metric of the task asks for them."""
    replay: Callable[[], tuple[Base, Policy]]
    """Loads the base and the decoder's prepared policy, for metrics that decode again."""
    identity: str
    """Hash of base, policy and sampler weights: names what was computed with `replay`."""
    cache: Path
    """Folder for what is costly and may be needed again."""
    device: str = "cpu"
    """Where judges run."""

    @property
    def texts(self) -> list[str]:
        """The generations' texts."""
        return [generation.text for generation in self.generations]


class Metric(ABC):
    """Measures generations. A metric is a frozen dataclass; a new one is a new file."""

    needs_reference: ClassVar[bool] = False
    """Draws independent exact samples for the task."""
    keeps_examples: ClassVar[bool] = False
    """`examples` is costly and kept in the cache: processes share the work before one scores."""
    has_ceiling: ClassVar[bool] = False
    """Is also measured on a second exact sample: the value a perfect decoder would get."""

    def check(self, n: int, decoders: Mapping[str, Policy], exact: Policy) -> None:  # noqa: B027  (most refuse nothing)
        """Refuse, before anything is decoded, what could not be measured afterwards.

        `decoders` and `exact` have the task's draw.
        """

    def fits(self, base: Base) -> None:  # noqa: B027  (most take any base)
        """Refuse, once the base is there but before anything is decoded, what could not be measured
        of it; load nothing large."""

    @abstractmethod
    def __call__(self, evidence: Evidence) -> dict[str, Score]:
        """Scores under the names they have in `scores.json`."""

    def examples(self, evidence: Evidence) -> dict[str, Values]:
        """What the scores are made of, example by example, where they are: decoders are compared
        pairwise by it. Empty for what only a whole set of texts has."""
        return {}


class ExampleMetric(Metric):
    """A metric whose scores are made of one value per example."""

    @abstractmethod
    def examples(self, evidence: Evidence) -> dict[str, Values]:
        """One value per example, under the names they have in `scores.json`."""

    def __call__(self, evidence: Evidence) -> dict[str, Score]:
        """The values' scores."""
        return {name: values.score() for name, values in self.examples(evidence).items()}
