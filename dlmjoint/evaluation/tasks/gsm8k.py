"""GSM8K (arXiv 2110.14168): grade-school word problems, graded by their number."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.answers.gsm8k import (
    CALCULATOR,
    MARK,
    NUMBER,
    extract_number,
    lm_eval_readings,
    plain,
)
from dlmjoint.evaluation.tasks.kinds.questions import DatasetQuestions, Question


@dataclass(frozen=True, kw_only=True)
class GSM8K(DatasetQuestions):
    """Problems with one number as the answer, after any number of worked examples.

    The number is read after `####`; else from the last box; else after the last "answer is" or
    "answer:"; else it is the text's last. Nothing is read of what a base writes after its answer, when
    it goes on to a next question. What lm-eval's two filters would read is graded beside it.
    """

    needed: ClassVar[tuple[str, ...]] = ("question", "answer")

    name: str = "gsm8k"
    n: int = 1319
    """Number of problems, from the first on; the test split has 1,319."""
    max_new_tokens: int = 256
    source: str = "openai/gsm8k"
    subset: str | None = "main"
    conclusion: str | None = None
    """How worked examples state their number. Null shows the solutions as they are: calculator
    notes, and `#### 72` on the last line. A text such as "The answer is" makes a chain of thought of
    them: one paragraph without notes that ends in that text, the number and a full stop."""

    def question_of(self, row: dict[str, Any]) -> Question:
        """A problem and its solution, which ends in `#### answer`."""
        solution = str(row["answer"])
        number = re.search(NUMBER, solution.rpartition(MARK)[2]) if MARK in solution else None
        if number is None:
            raise DataError(f"the solution has no number after {MARK}")
        return Question(str(row["question"]), self._shown(solution), plain(number[0]))

    def grade(self, example: Example, text: str) -> Grade:
        """Right if the number read is the answer, whatever its notation: 1,000.0 is 1000."""
        reference = str(example.reference)
        others = {name: value == reference for name, value in lm_eval_readings(text).items()}
        found = extract_number(self.answer(text))
        if found is None:
            return Grade(False, None, "no number in the text", others)
        value, place = found
        correct = Fraction(value) == Fraction(reference)
        wrong = "" if correct else f", but the answer is {reference}"
        return Grade(correct, value, f"{value}, {place}{wrong}", others)

    def _shown(self, solution: str) -> str:
        if self.conclusion is None:
            return solution
        steps, _, number = solution.rpartition(MARK)
        lines = (line.strip() for line in CALCULATOR.sub("", steps).splitlines())
        thought = " ".join(line + "." * (line[-1] not in ".!?:,") for line in lines if line)
        return f"{thought} {self.conclusion.strip()} {number.strip()}."
