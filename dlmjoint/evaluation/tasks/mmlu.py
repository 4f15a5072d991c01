"""MMLU (arXiv 2009.03300): questions of 57 subjects, answered by a letter that is generated."""

from dataclasses import dataclass
from typing import Any, ClassVar

from dlmjoint.errors import DataError
from dlmjoint.evaluation.tasks.kinds.multiple_choice import LETTERS, MultipleChoice, lettered
from dlmjoint.evaluation.tasks.kinds.questions import Question


@dataclass(frozen=True, kw_only=True)
class MMLU(MultipleChoice):
    """Four options; worked examples are of the question's subject, where the source names subjects.

    The source's order is by subject: take all questions, or set `shuffle`.
    """

    needed: ClassVar[tuple[str, ...]] = ("question", "choices", "answer")
    optional: ClassVar[tuple[str, ...]] = ("subject",)
    letters: ClassVar[str] = "ABCD"

    name: str = "mmlu"
    n: int = 14042
    """Number of questions, from the first on; the test split has 14,042."""
    max_new_tokens: int = 64
    source: str = "cais/mmlu"
    """Hub id of a data set, or a local .json, .jsonl or .parquet file."""
    subset: str | None = "all"
    """The hub data set's configuration: `all` or a subject."""
    shots_split: str = "dev"
    """Split of worked examples, of a hub data set; `dev` has five of each subject."""

    def question_of(self, row: dict[str, Any]) -> Question:
        """A question, its list of choices, and the right one's place or letter."""
        choices, answer = row["choices"], row["answer"]
        if not isinstance(choices, list):
            raise DataError(f"choices is {choices!r}, expected a list")
        options = [str(choice) for choice in choices]
        right = LETTERS.find(answer) if isinstance(answer, str) and answer else answer
        if not isinstance(right, int):
            raise DataError(f"answer is {answer!r}, expected a place from 0 on or a letter")
        return lettered(str(row["question"]), options, right, str(row.get("subject") or ""))
