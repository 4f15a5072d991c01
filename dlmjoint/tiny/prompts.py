"""The tiny world's questions as a source of prompts."""

from dataclasses import dataclass

from dlmjoint.models.base import Base
from dlmjoint.tiny.corpus import problem
from dlmjoint.trajectories.prompts import Prompts, encode_all


@dataclass(frozen=True)
class Questions(Prompts):
    """The questions of the first n problems of a stream."""

    n: int
    """Number of questions."""
    stream: int = 0
    """0 is the stream the base was trained on, 1 and 2 are held out."""
    opening: str = "<|beginoftext|>"
    """Written before the question."""

    def ids(self, base: Base) -> list[list[int]]:
        """Question by question."""
        texts = [self.opening + problem(self.stream, index).question for index in range(self.n)]
        return encode_all(base, texts, False, "the tiny world")
