"""Questions that are made by seed, as many as are asked for."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from dlmjoint.decoding.draw import Draw
from dlmjoint.evaluation.tasks.kinds.questions import Question, Questions


@dataclass(frozen=True, kw_only=True)
class Puzzles(Questions):
    """Questions of a stream, and worked examples of another."""

    stream: ClassVar[str]
    """Begins the key of every puzzle."""

    seed: int = 0
    """Which stream of puzzles; worked examples are of a stream of their own."""

    @abstractmethod
    def puzzle(self, key: str) -> Question:
        """The puzzle of a key: it depends on nothing else but the task's settings."""

    def key(self, index: int) -> str:
        """The key of a question: it depends on the seed and the index alone."""
        return f"{self.stream}/{self.seed}/{index}"

    def questions(self) -> list[Question]:
        """The first n of the stream."""
        return [self.puzzle(self.key(index)) for index in range(self.n)]

    def worked(self, topic: str) -> list[Question]:
        """Puzzles of a stream that `questions` never asks."""
        keys = (f"{self.stream}/worked/{self.seed}/{index}" for index in range(self.shots))
        return [self.puzzle(key) for key in keys]


@dataclass(frozen=True, kw_only=True)
class ManyAnswers(Puzzles):
    """Puzzles of which many answers are right, none of them made of independent words."""

    n: int = 200
    shots: int = 4
    draw: Draw | None = field(default_factory=Draw)
    """Replaces every decoder's own; at temperature 1 all right answers may be written."""
