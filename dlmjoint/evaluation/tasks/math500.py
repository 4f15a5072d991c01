r"""MATH-500 (arXiv 2103.03874, 2305.20050): competition problems, graded by their boxed answer."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.answers import equivalence
from dlmjoint.evaluation.tasks.answers.boxed import boxes
from dlmjoint.evaluation.tasks.kinds.questions import DatasetQuestions, Question

SAID = re.compile(r"\banswers?\b[*_]*\s*(?:(?:is|are)\b|:)[\s:*_]*", re.IGNORECASE)
"""Stands before the answer in sentences."""
INSIDE = r"(?:\\[^()\[\]]|[^$\\])+?"
MATHS = re.compile(
    rf"(?<!\\)\$\$({INSIDE})\$\$|(?<!\\)\$({INSIDE})\$|\\\(({INSIDE})\\\)|\\\[({INSIDE})\\\]"
)
"""What a text sets as mathematics: `$5$`, `$$5$$`, `\\(5\\)`, `\\[5\\]`."""
NUMBER = re.compile(r"[-(\[]*\d[^$]*$")
SENTENCE = re.compile(r"\.(?:\s|$)")
AND = re.compile(r"\s*(?:,\s*(?:and|or)?|and|or)\s*")
FILLER = re.compile(
    r"(?:\s|\*|(?:that|simply|just|exactly|equal to|given by|the (?:number|value|set|interval|point))\b)*",
    re.IGNORECASE,
)
"""What may stand between "answer is" and mathematics that is the answer."""
END = re.compile(r"\.(?=\s|$)|\n|,?\s+(?:because|since|so that|as|where|when|which|for)\b")
"""What ends an answer that is set as text."""


@dataclass(frozen=True, kw_only=True)
class Math500(DatasetQuestions):
    r"""Problems with an answer in LaTeX.

    The answer is the content of the last `\boxed{}`, also of `\boxed 5`; else what the last "answer is"
    or "answer:" says: its mathematics, where some is set, or the sentence up to its full stop or its
    reason. Two answers are the same as `equivalence` says.
    """

    needed: ClassVar[tuple[str, ...]] = ("problem", "answer")
    optional: ClassVar[tuple[str, ...]] = ("solution",)

    name: str = "math500"
    n: int = 500
    """Number of problems, from the first on; there are 500."""
    max_new_tokens: int = 512
    source: str = "HuggingFaceH4/MATH-500"
    """Hub id of a data set, or a local .json, .jsonl, .csv or .parquet file. It has no training
    split: for worked examples, name a shots_source."""
    before: str = "Problem:\n"
    after: str = "\n\nSolution:"

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
    if boxed := boxes(text):
        return boxed[-1], "in the last \\boxed{}"
    end = len(text)
    for said in reversed(list(SAID.finditer(text))):
        if answer := _stated(text[said.end() : end].partition("\n\n")[0]):
            return answer, "after 'answer is'"
        end = said.start()
    return None


def _stated(text: str) -> str:
    """The mathematics that a text begins with, all of a list; else a number in words' place; else the
    last mathematics of the sentence; else its words. Empty if there are none."""
    filler = FILLER.match(text)
    first = MATHS.match(text, filler.end() if filler else 0)
    if first is None:
        words = (text[: found.start()] if (found := END.search(text)) else text).strip(" *:_")
        among = [] if NUMBER.match(words) else list(MATHS.finditer(SENTENCE.split(text)[0]))
        return _content(among[-1]) if among else words
    listed = [first]
    while (sign := AND.match(text, listed[-1].end())) and (more := MATHS.match(text, sign.end())):
        listed.append(more)
    return ", ".join(map(_content, listed))


def _content(maths: re.Match[str]) -> str:
    return next(part for part in maths.groups() if part is not None).strip(" \t\n.,")
