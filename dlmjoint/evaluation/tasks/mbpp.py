"""MBPP (arXiv 2108.07732): functions to write from a sentence and their tests."""

import ast
import builtins
from dataclasses import dataclass
from typing import Any, ClassVar

from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Example
from dlmjoint.evaluation.tasks.answers.programs import block, function_in
from dlmjoint.evaluation.tasks.kinds.code import CodeQuestions
from dlmjoint.evaluation.tasks.kinds.questions import Question

BEGIN, DONE = "[BEGIN]", "[DONE]"


@dataclass(frozen=True, kw_only=True)
class MBPP(CodeQuestions):
    """Functions described by a sentence and three tests, after three worked examples in the paper's
    wording (figure 1), or in a chat.

    Nothing is read behind `[DONE]` or a next question, or before `[BEGIN]`. Of the rest, it is what
    defines the function that the tests call, as `programs` finds it; else the first block of code that
    defines one; else a block that the text begins with, else all.
    """

    needed: ClassVar[tuple[str, ...]] = ("text", "test_list")
    optional: ClassVar[tuple[str, ...]] = ("code", "test_setup_code", "test_imports")

    name: str = "mbpp"
    n: int = 500
    """Number of functions, from the first on; the test split has 500."""
    max_new_tokens: int = 512
    source: str = "google-research-datasets/mbpp"
    subset: str | None = "full"
    """The hub data set's configuration; `sanitized` calls the column `text` `prompt`: set
    `columns: {text: prompt}`."""
    shots_split: str = "prompt"
    before: str = "You are an expert Python programmer, and here is your task: "
    after: str = f"\n{BEGIN}\n"

    def question_of(self, row: dict[str, Any]) -> Question:
        """A sentence and the tests, and a program between the marks."""
        tests = row["test_list"]
        if not isinstance(tests, list) or not tests:
            raise DataError(f"test_list is {tests!r}, expected a list of tests")
        setup = [str(row.get("test_setup_code") or ""), *(row.get("test_imports") or [])]
        shown = "\n".join(tests)
        return Question(
            f"{str(row['text']).strip()} Your code should pass these tests:\n\n{shown}",
            f"{str(row['code']).strip()}\n{DONE}" if row.get("code") else "",
            "\n".join([part for part in setup if part] + tests) + "\n",
        )

    def program(self, example: Example, text: str) -> str | None:
        """The program; see the class."""
        between = self.answer(text).split(DONE)[0].rpartition(BEGIN)[2]
        code = function_in(between, tested(example)) or block(between) or between
        return code if code.strip() else None


def tested(example: Example) -> str:
    """The names that the tests call and that are not Python's own, as a regular expression."""
    calls = [n.func for n in ast.walk(ast.parse(str(example.reference))) if isinstance(n, ast.Call)]
    names = {call.id: None for call in calls if isinstance(call, ast.Name)}
    return "|".join(name for name in names if not hasattr(builtins, name)) or r"\w+"
