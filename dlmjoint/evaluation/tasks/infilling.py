"""A function that somebody wrote, with a hole: what stands before and behind it is given."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from dlmjoint.code.corpus import Split, read
from dlmjoint.decoding.draw import Draw
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.metrics.accuracy import Accuracy
from dlmjoint.evaluation.metrics.base import Metric
from dlmjoint.evaluation.metrics.python_function import PythonFunction
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.base import Task
from dlmjoint.models.base import Base, Texts
from dlmjoint.sampling import prompt_ids


@dataclass(frozen=True, kw_only=True)
class Infilling(Task):
    """Functions of packages that training has not seen, `hole` tokens of each masked in one run.

    All other columns are anchors, the end-of-text behind the function included: where the text ends
    is given too. The text that is read is the whole function; right is the one that was written.
    """

    name: str = "infilling"
    n: int = 500
    """Number of functions, the first of the split that fit."""
    max_new_tokens: int = 47
    """Columns of the response; the default fills the code world's canvas."""
    draw: Draw | None = field(default_factory=lambda: Draw(temperature=0.0))
    """Replaces every decoder's own: what was there is one text, so the likeliest is asked for."""
    corpus: str = "runs/code/corpus"
    """Folder that `train.code_corpus` has filled."""
    split: Split = "test"
    """Whose functions."""
    characters: tuple[int, int] = (60, 90)
    """Least and most of a function: known without a tokenizer, and few enough for the canvas."""
    hole: int = 8
    """Masked tokens."""
    seed: int = 0
    """Of the holes' places."""

    def __post_init__(self) -> None:
        if self.hole < 1:
            raise ConfigError(f"hole is {self.hole}, expected at least 1 token")

    def examples(self) -> list[Example]:
        """The functions. Raises DataError if the split has fewer, ConfigError without a corpus."""
        least, most = self.characters
        texts = read(Path(self.corpus), self.split)
        found = [text for text in texts if least <= len(text) <= most]
        if len(found) < self.n:
            raise DataError(
                f"{self.corpus} has {len(found)} functions of {least} to {most} characters in "
                f"{self.split}, and n is {self.n}"
            )
        return [Example(id=i, prompt="", reference=text) for i, text in enumerate(found[: self.n])]

    def standard_metrics(self) -> list[Metric]:
        """The share that is as it was, and what can be said of the others."""
        return [Accuracy(), PythonFunction()]

    def prompt_ids(self, base: Base, examples: Sequence[Example]) -> list[list[int]]:
        """The beginning-of-text id; raises ConfigError if the base has none."""
        return prompt_ids(base, len(examples))

    def anchors_of(self, base: Base, examples: Sequence[Example]) -> list[Texts]:
        """Everything but the hole. Raises ConfigError if a function is shorter than its hole or longer
        than the response."""
        return [self._around(base, example) for example in examples]

    def grade(self, example: Example, text: str) -> Grade:
        """Right is the function as it was."""
        right = text == example.reference
        return Grade(right, text, "as it was" if right else f"it was {example.reference}")

    def _around(self, base: Base, example: Example) -> Texts:
        assert example.reference is not None
        ids = base.encode(example.reference)
        if not self.hole <= len(ids) <= self.max_new_tokens:
            raise ConfigError(
                f"a function of {len(ids)} tokens has no hole of {self.hole} on a response of "
                f"{self.max_new_tokens}: change `characters`"
            )
        random = Random(f"infilling/{self.seed}/{example.id}")
        first = random.randrange(len(ids) - self.hole + 1)
        behind = ids[first + self.hole :] + [base.eos_id] * (self.max_new_tokens - len(ids))
        around = {0: ids[:first], first + self.hole: behind}
        return {column: part for column, part in around.items() if part}
