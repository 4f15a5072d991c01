"""A task: go on from a letter."""

from dataclasses import dataclass
from string import ascii_lowercase as LETTERS

from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.kinds.graded import Graded


@dataclass(frozen=True, kw_only=True)
class Ladders(Graded):
    """Prompts of one letter; a text is right if it goes on in the alphabet to its end."""

    name: str = "ladders"
    """Stands in file names and in scores.json."""
    n: int = 100
    """Number of prompts."""
    max_new_tokens: int = 16
    """Letters to write."""

    def examples(self) -> list[Example]:
        """One letter each, round and round the alphabet."""
        around = LETTERS * (2 + self.max_new_tokens // len(LETTERS))
        starts = [index % len(LETTERS) for index in range(self.n)]
        return [
            Example(index, around[start], around[start + 1 :][: self.max_new_tokens])
            for index, start in enumerate(starts)
        ]

    def grade(self, example: Example, text: str) -> Grade:
        """Right if every letter is the next one."""
        correct = text == example.reference
        return Grade(correct, text or None, f"{text}, wanted {example.reference}")
