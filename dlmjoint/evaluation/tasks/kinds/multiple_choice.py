"""Multiple choice by generation: a letter is written and read, no likelihood is compared."""

import re
from dataclasses import dataclass
from typing import ClassVar

from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.answers.boxed import boxes
from dlmjoint.evaluation.tasks.kinds.questions import DatasetQuestions, Question

LETTERS = "ABCDEFGHIJ"
BOXED = "in a box"
PLACES = {
    # A sentence that gives a letter as the answer.
    "after 'answer'": re.compile(
        r"(?i:answer(?:\s+is|\s*:)[\s:]*(?:(?:the\s+)?(?:option|choice|letter)\s+)?)"
        r"[\s*$(\[\\{]*(?:(?:boxed|text|textbf|mathbf)[{(\s]*)*([A-J])(?![\w'’])"
    ),
    # Nothing but a letter is in one.
    BOXED: re.compile(r"^\W*(?:text\w*\{\W*)?([A-J])\W*$", re.MULTILINE),
    # Nothing but a letter, or the beginning of an option: `B`, `(B)`, `B. a whale`; not `A whale`.
    "on a line of its own": re.compile(r"^\W*([A-J])(?:[.):]|\W*$)", re.MULTILINE),
    "in brackets": re.compile(r"\(([A-J])\)"),
}
"""Where a letter is looked for, in this order; the last of its kind counts."""


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(DatasetQuestions):
    """Questions with lettered options.

    The letter is read behind the last "answer is" or "answer:"; else from the last box; else from the
    last line that is a letter or begins as an option; else it is the last one in brackets. Letters of
    no option are passed over. An anchor such as `{-4: "The answer is"}` has it read behind it.
    """

    letters: ClassVar[str]
    """Letters that an answer may be."""

    def grade(self, example: Example, text: str) -> Grade:
        """Right if the letter read is the answer's."""
        found = extract_letter(self.answer(text), self.letters)
        if found is None:
            return Grade(correct=False, extracted=None, reason="no letter in the text")
        letter, place = found
        wrong = "" if letter == example.reference else f", but the answer is {example.reference}"
        return Grade(letter == example.reference, letter, f"{letter}, {place}{wrong}")


def lettered(question: str, options: list[str], right: int, topic: str = "") -> Question:
    """A question and its options, a line each. Raises DataError if they cannot be lettered."""
    if not 2 <= len(options) <= len(LETTERS):
        raise DataError(f"{len(options)} options, expected 2 to {len(LETTERS)}")
    if not 0 <= right < len(options):
        raise DataError(f"the answer is option {right} of {len(options)}, counted from 0")
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    letter = LETTERS[right]
    return Question("\n".join([question.strip(), *lines]), letter, letter, topic)


def extract_letter(text: str, letters: str) -> tuple[str, str] | None:
    """The letter a text gives as its answer, and where it stood; None if there is none."""
    for place, letter in PLACES.items():
        where = "\n".join(boxes(text)) if place == BOXED else text
        if found := [one for one in letter.findall(where) if one in letters]:
            return found[-1], place
    return None
