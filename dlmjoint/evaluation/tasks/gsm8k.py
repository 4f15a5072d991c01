"""GSM8K (arXiv 2110.14168): grade-school word problems, graded by their number."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from datasets import load_dataset
from datasets.exceptions import DatasetsError

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.metrics.accuracy import Accuracy
from dlmjoint.evaluation.metrics.base import Metric
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.base import Task
from dlmjoint.models.base import Base

MARK = "####"
"""Stands before the answer in the data set's solutions."""
SAID = "answer is"
"""Stands before the answer in sentences."""
FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
"""Local files, and what `datasets` calls their format."""
NUMBER = re.compile(
    r"""
    (?:(?<![\w)])[-−])?                          # a sign, if it is no minus between two values
    \$?(?:(?<=\$)[-−])?                         # a dollar sign, before or behind it
    (?:\d+(?:,\d{3}(?!\d))*|(?=\.\d))(?:\.\d+)?  # commas between thousands, decimals
    """,
    re.VERBOSE,
)


class Solved(NamedTuple):
    """A problem and its worked solution, which ends in `#### answer`."""

    question: str
    solution: str


@dataclass(frozen=True, kw_only=True)
class GSM8K(Task):
    """Problems with one number as the answer, after any number of worked examples.

    The number is read after `####`; else after the last "answer is"; else it is the text's last.
    Nothing is read of what a base writes after its answer, when it goes on to a next question.
    """

    name: str = "gsm8k"
    """Stands in file names and in scores.json."""
    n: int = 1319
    """Number of problems, from the first on; the test split has 1,319."""
    max_new_tokens: int = 256
    """Columns of the response."""
    source: str = "openai/gsm8k"
    """Hub id of a data set, or a local .json, .jsonl, .csv or .parquet file."""
    subset: str | None = "main"
    """The hub data set's configuration; a local file has none."""
    split: str = "test"
    """Of a hub data set."""
    question: str = "question"
    """Column of the questions."""
    solution: str = "answer"
    """Column of the solutions, which end in `#### answer`."""
    shots: int = 0
    """Worked examples before every question, the first ones of `shots_source`."""
    shots_source: str | None = None
    """Where they are from; null takes the hub data set's training split."""
    before: str = "Question: "
    """Written before a question."""
    after: str = "\nAnswer:"
    """Written after a question."""
    opening: str = ""
    """Written before everything, such as the beginning-of-text token; not in a chat."""
    chat: bool = False
    """Everything is the user's message in the tokenizer's chat template."""
    metrics: list[Metric] | None = field(default=None)
    """What to measure; null takes accuracy."""

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise ConfigError(f"shots is {self.shots}, expected 0 or more")
        if self.shots and self.shots_source is None and _is_file(self.source):
            raise ConfigError(f"{self.source} is a file: name another one as shots_source")
        if self.chat and self.opening:
            raise ConfigError("opening is not used in a chat: the template writes its own")

    def examples(self) -> list[Example]:
        """The first n problems.

        Raises DataError if the source does not load, lacks problems, or has one without an answer.
        """
        columns = (self.question, self.solution)
        problems = _first(self.source, self.subset, self.split, columns, self.n)
        worked = "".join(
            f"{self._asked(shot.question)} {shot.solution}\n\n" for shot in self._worked()
        )
        return [
            Example(
                id=index,
                prompt=self.opening + worked + self._asked(problem.question),
                reference=_reference(problem.solution, index, self.source),
            )
            for index, problem in enumerate(problems)
        ]

    def standard_metrics(self) -> list[Metric]:
        """Accuracy."""
        return [Accuracy()]

    def shown(self, example: Example) -> str:
        """The prompt as people read it."""
        return example.prompt.removeprefix(self.opening)

    def prompt_ids(self, base: Base, examples: Sequence[Example]) -> list[list[int]]:
        """The prompts as ids; raises ConfigError for a chat without a chat template."""
        if not self.chat:
            return [base.encode(example.prompt) for example in examples]
        if base.tokenizer is None or not base.tokenizer.chat_template:
            raise ConfigError(f"{base.name} has no chat template: set chat to false")
        return [base.encode_chat(example.prompt) for example in examples]

    def grade(self, example: Example, text: str) -> Grade:
        """Right if the number read is the answer, whatever its notation: 1,000.0 is 1000."""
        found = extract_number(self._answer(text))
        if found is None:
            return Grade(correct=False, extracted=None, reason="no number in the text")
        value, place = found
        correct = Decimal(value) == Decimal(str(example.reference))
        wrong = "" if correct else f", but the answer is {example.reference}"
        return Grade(correct=correct, extracted=value, reason=f"{value}, {place}{wrong}")

    def _asked(self, question: str) -> str:
        return self.before + question + self.after

    def _answer(self, text: str) -> str:
        """The text up to where a next question begins."""
        following = self.before.strip()
        return text.split(following, 1)[0] if following else text

    def _worked(self) -> list[Solved]:
        if not self.shots:
            return []
        columns = (self.question, self.solution)
        source = self.source if self.shots_source is None else self.shots_source
        return _first(source, self.subset, "train", columns, self.shots)


def extract_number(text: str) -> tuple[str, str] | None:
    """The number a text gives as its answer, without commas and dollar signs, and where it stood;
    None if there is none."""
    _, _, line = text.rpartition(MARK)
    _, _, sentence = text.lower().rpartition(SAID)
    places = {
        f"after {MARK}": line.strip().partition("\n")[0] if MARK in text else "",
        f"after {SAID!r}": sentence if SAID in text.lower() else "",
    }
    for place, rest in places.items():
        if number := NUMBER.search(rest):
            return _plain(number[0]), place
    numbers = NUMBER.findall(text)
    return (_plain(numbers[-1]), "the last number") if numbers else None


def _plain(number: str) -> str:
    """As `Decimal` reads it."""
    return number.replace(",", "").replace("$", "").replace("−", "-")


def _reference(solution: str, index: int, source: str) -> str:
    """The number after `####`. Raises DataError if there is none."""
    number = NUMBER.search(solution.rpartition(MARK)[2]) if MARK in solution else None
    if number is None:
        raise DataError(f"{source}, problem {index}: the solution has no number after {MARK}")
    return _plain(number[0])


def _is_file(source: str) -> bool:
    return Path(source).suffix in FORMATS


def _first(
    source: str, subset: str | None, split: str, columns: tuple[str, str], n: int
) -> list[Solved]:
    """The first n rows. Raises DataError if there are fewer."""
    rows = _load(source, subset, split, columns)
    if len(rows) < n:
        raise DataError(f"{source} has {len(rows)} problems, {n} were asked for")
    return rows[:n]


@lru_cache(maxsize=4)
def _load(source: str, subset: str | None, split: str, columns: tuple[str, str]) -> list[Solved]:
    """All rows of a data set or a file; read once, since run and scores ask again."""
    try:
        if _is_file(source):
            kind = FORMATS[Path(source).suffix]
            rows = load_dataset(kind, data_files=source, split="train")
        else:
            rows = load_dataset(source, name=subset, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        raise DataError(f"the problems {source} do not load: {error}") from error
    lacking = [column for column in columns if column not in rows.column_names]
    if lacking:
        raise DataError(f"{source} has no column {lacking[0]!r}; it has {rows.column_names}")
    return [Solved(str(q), str(s)) for q, s in zip(*(rows[c] for c in columns), strict=True)]
