"""ARC-Challenge (arXiv 1803.05457): school science, answered by a letter that is generated."""

from dataclasses import dataclass
from typing import Any, ClassVar

from dlmjoint.errors import DataError
from dlmjoint.evaluation.tasks.kinds.multiple_choice import MultipleChoice, lettered
from dlmjoint.evaluation.tasks.kinds.questions import Question


@dataclass(frozen=True, kw_only=True)
class ArcChallenge(MultipleChoice):
    """Three to five options. Some questions number them; they are lettered here."""

    needed: ClassVar[tuple[str, ...]] = ("question", "choices", "answerKey")
    letters: ClassVar[str] = "ABCDE"

    name: str = "arc_challenge"
    n: int = 1172
    """Number of questions, from the first on; the test split has 1,172."""
    max_new_tokens: int = 64
    source: str = "allenai/ai2_arc"
    """Hub id of a data set, or a local .json, .jsonl or .parquet file."""
    subset: str | None = "ARC-Challenge"
    """The hub data set's configuration; `ARC-Easy` is the other one."""

    def question_of(self, row: dict[str, Any]) -> Question:
        """A question, its choices' texts and labels, and the right one's label."""
        choices, key = row["choices"], str(row["answerKey"])
        if not (isinstance(choices, dict) and {"text", "label"} <= choices.keys()):
            raise DataError(f"choices is {choices!r}, expected lists text and label")
        labels = [str(label) for label in choices["label"]]
        if key not in labels:
            raise DataError(f"answerKey is {key!r}, none of the labels {labels}")
        options = [str(option) for option in choices["text"]]
        return lettered(str(row["question"]), options, labels.index(key))
