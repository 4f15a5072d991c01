"""GSM8K (arXiv 2110.14168): grade-school word problems, graded by their number."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.questions import DatasetQuestions, Question

MARK = "####"
"""Stands before the answer in the data set's solutions."""
SAID = "answer is"
"""Stands before the answer in sentences."""
NUMBER = re.compile(
    r"""
    (?:(?<![\w)])[-−])?                          # a sign, if it is no minus between two values
    \$?(?:(?<=\$)[-−])?                         # a dollar sign, before or behind it
    (?:\d+(?:,\d{3}(?!\d))*|(?=\.\d))(?:\.\d+)?  # commas between thousands, decimals
    """,
    re.VERBOSE,
)


CALCULATOR = re.compile(r"<<.*?>>")
"""The data set's notes for a calculator, in solutions: `<<48/2=24>>`."""


@dataclass(frozen=True, kw_only=True)
class GSM8K(DatasetQuestions):
    """Problems with one number as the answer, after any number of worked examples.

    The number is read after `####`; else after the last "answer is"; else it is the text's last.
    Nothing is read of what a base writes after its answer, when it goes on to a next question.
    """

    needed: ClassVar[tuple[str, ...]] = ("question", "answer")

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
    conclusion: str | None = None
    """How worked examples state their number. Null shows the solutions as they are: calculator
    notes, and `#### 72` on the last line. A text such as "The answer is" makes a chain of thought of
    them: one paragraph without notes that ends in that text, the number and a full stop."""

    def question_of(self, row: dict[str, Any]) -> Question:
        """A problem and its solution, which ends in `#### answer`."""
        solution = str(row["answer"])
        number = NUMBER.search(solution.rpartition(MARK)[2]) if MARK in solution else None
        if number is None:
            raise DataError(f"the solution has no number after {MARK}")
        return Question(str(row["question"]), self._shown(solution), _plain(number[0]))

    def grade(self, example: Example, text: str) -> Grade:
        """Right if the number read is the answer, whatever its notation: 1,000.0 is 1000."""
        found = extract_number(self.answer(text))
        if found is None:
            return Grade(correct=False, extracted=None, reason="no number in the text")
        value, place = found
        correct = Decimal(value) == Decimal(str(example.reference))
        wrong = "" if correct else f", but the answer is {example.reference}"
        return Grade(correct=correct, extracted=value, reason=f"{value}, {place}{wrong}")

    def _shown(self, solution: str) -> str:
        if self.conclusion is None:
            return solution
        steps, _, number = solution.rpartition(MARK)
        lines = (line.strip() for line in CALCULATOR.sub("", steps).splitlines())
        thought = " ".join(line + "." * (line[-1] not in ".!?:,") for line in lines if line)
        return f"{thought} {self.conclusion.strip()} {number.strip()}."


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
