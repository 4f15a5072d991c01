"""The contract of a task."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.evaluation.metrics.base import Metric
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.models.base import Base, Texts


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Examples to write, how to grade them, and what to measure. A new task is a new file."""

    name: str
    """Stands in file names and in scores.json."""
    n: int
    """Number of examples."""
    max_new_tokens: int
    """Columns of the response."""
    draw: Draw | None = None
    """Replaces every decoder's own draw, for example temperature 0 where accuracy is measured."""
    anchors: dict[int, str] | None = None
    """Texts fixed in every response before decoding, by column (negative: from its end), for all
    decoders alike; tokenised by each base. Prophet's `AfterAnchor` looks behind the last of them."""
    exact: Policy = field(default_factory=Policy)
    """How references are drawn: one commit per forward, with the order the decoders use."""
    metrics: list[Metric] | None = None
    """What to measure; None takes the task's standard metrics."""

    @abstractmethod
    def examples(self) -> list[Example]:
        """Example i is the same whatever n is; ids count from 0."""

    @abstractmethod
    def standard_metrics(self) -> list[Metric]:
        """What is measured where the configuration names nothing."""

    def grade(self, example: Example, text: str) -> Grade | None:
        """The judged answer; None where there is nothing to be right about."""
        return None

    def shown(self, example: Example) -> str:
        """The prompt as people read it, and judges: without special tokens."""
        return example.prompt

    def prompt_ids(self, base: Base, examples: Sequence[Example]) -> list[list[int]]:
        """The prompts as ids; a task with a chat template or without prompts overrides this."""
        return [base.encode(example.prompt) for example in examples]

    def anchors_of(self, base: Base, examples: Sequence[Example]) -> list[Texts]:
        """What is fixed in each response: `anchors`; a task whose examples differ overrides this."""
        return [self.anchors or {} for _ in examples]

    @property
    def measured(self) -> list[Metric]:
        """The metrics in use."""
        return self.standard_metrics() if self.metrics is None else self.metrics

    def apply(self, policy: Policy) -> Policy:
        """The policy with this task's draw."""
        return policy if self.draw is None else replace(policy, draw=self.draw)
