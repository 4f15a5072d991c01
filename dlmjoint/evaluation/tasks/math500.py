r"""MATH-500 (arXiv 2103.03874, 2305.20050): competition problems, graded by their boxed answer."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks import equivalence
from dlmjoint.evaluation.tasks.questions import DatasetQuestions, Question

BOX = re.compile(r"\\f?box(?:ed)?\s*")
SAID = re.compile(r"answer\s+is:?\s*(.+)", re.IGNORECASE)
"""Stands before the answer in sentences."""
MATHS = re.compile(r"\$(.+?)\$|\\\((.+?)\\\)")
"""What a sentence sets as mathematics."""


@dataclass(frozen=True, kw_only=True)
class Math500(DatasetQuestions):
    r"""Problems with an answer in LaTeX.

    The answer is the content of the last `\boxed{}`; else what the last "answer is" says: its
    mathematics, where some is set, or the sentence up to its full stop. Two answers are the same as
    `equivalence` says.
    """

    needed: ClassVar[tuple[str, ...]] = ("problem", "answer")
    optional: ClassVar[tuple[str, ...]] = ("solution",)

    name: str = "math500"
    """Stands in file names and in scores.json."""
    n: int = 500
    """Number of problems, from the first on; there are 500."""
    max_new_tokens: int = 512
    """Columns of the response."""
    source: str = "HuggingFaceH4/MATH-500"
    """Hub id of a data set, or a local .json, .jsonl, .csv or .parquet file. It has no training
    split: for worked examples, name a shots_source."""
    before: str = "Problem:\n"
    """Written before a question."""
    after: str = "\n\nSolution:"
    """Written after a question."""

    def examples(self) -> list[Example]:
        """The problems. Raises ConfigError where answers could not be compared."""
        equivalence.check()
        return super().examples()

    def question_of(self, row: dict[str, Any]) -> Question:
        """A problem; its solution boxes the answer."""
        if not str(row["answer"]).strip():
            raise DataError("there is no answer")
        solution = str(row.get("solution") or "")
        return Question(str(row["problem"]), solution, str(row["answer"]))

    def grade(self, example: Example, text: str) -> Grade:
        """Right if the answer read is the same as the reference."""
        found = extract_answer(self.answer(text))
        if found is None:
            return Grade(False, None, "no \\boxed{} and no 'answer is' in the text")
        value, place = found
        assert example.reference is not None
        same = equivalence.equal(example.reference, value)
        wrong = {
            True: "",
            False: f", but the answer is {example.reference}",
            None: f", could not be compared with {example.reference}",
        }
        return Grade(same is True, value, f"{value}, {place}{wrong[same]}")


def extract_answer(text: str) -> tuple[str, str] | None:
    """The answer a text gives, and where it stood; None if there is none."""
    for box in reversed(list(BOX.finditer(text))):
        if content := _braced(text[box.end() :]):
            return content, "in the last \\boxed{}"
    sentences = SAID.findall(text)
    if not sentences:
        return None
    maths = MATHS.search(sentences[-1])
    said = (maths[1] or maths[2]) if maths else re.split(r"\.(?:\s|$)", sentences[-1])[0]
    said = said.strip(" *:")
    return (said, "after 'answer is'") if said else None


def _braced(text: str) -> str | None:
    """What stands in the braces that a text begins with; None if they do not open or close."""
    if not text.startswith("{"):
        return None
    depth = 0
    for place, sign in enumerate(text):
        escaped = text[place - 1 : place] == "\\"
        depth += (sign == "{" and not escaped) - (sign == "}" and not escaped)
        if depth == 0:
            return text[1:place].strip()
    return None
