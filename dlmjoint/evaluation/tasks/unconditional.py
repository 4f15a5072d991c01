"""Free text from nothing: is the sampler's joint the base's joint?"""

from collections.abc import Sequence
from dataclasses import dataclass

from dlmjoint.evaluation.metrics.agreement import CorpusAgreement
from dlmjoint.evaluation.metrics.base import Metric
from dlmjoint.evaluation.metrics.mauve import Mauve
from dlmjoint.evaluation.metrics.nll import NLL
from dlmjoint.evaluation.metrics.trajectory_kl import TrajectoryKL
from dlmjoint.evaluation.records import Example
from dlmjoint.evaluation.tasks.base import Task
from dlmjoint.models.base import Base
from dlmjoint.sampling import prompt_ids
from dlmjoint.tiny.corpus import CANVAS


@dataclass(frozen=True, kw_only=True)
class Unconditional(Task):
    """Samples that start from the beginning-of-text id alone."""

    name: str = "unconditional"
    n: int = 1000
    """Number of samples; MAUVE asks for at least 500."""
    max_new_tokens: int = CANVAS - 1
    """Columns of the response; the default fills the tiny world's canvas."""
    judge: str = "checkpoints/tiny-judge"
    """Folder or hub id of the model the standard metrics judge with."""

    def examples(self) -> list[Example]:
        """Nothing but ids."""
        return [Example(id=index, prompt="") for index in range(self.n)]

    def standard_metrics(self) -> list[Metric]:
        """The corpus checks, MAUVE, NLL and the trajectory KL."""
        return [CorpusAgreement(), Mauve(self.judge), NLL(self.judge), TrajectoryKL()]

    def prompt_ids(self, base: Base, examples: Sequence[Example]) -> list[list[int]]:
        """The beginning-of-text id; raises ConfigError if the base has none."""
        return prompt_ids(base, len(examples))
