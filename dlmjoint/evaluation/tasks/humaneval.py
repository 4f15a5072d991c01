"""HumanEval (arXiv 2107.03374): functions to complete from their docstring."""

import re
import textwrap
from dataclasses import dataclass
from typing import Any, ClassVar

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.records import Example
from dlmjoint.evaluation.tasks.answers.programs import block, compiles, function_in, has_function
from dlmjoint.evaluation.tasks.kinds.code import CodeQuestions
from dlmjoint.evaluation.tasks.kinds.questions import Question

STOPS = re.compile(r"\n(?:class|def|#|if|print|@|assert|import|from|```|~~~)")
"""What ends a completion: something else begins at the left margin. The first five are the paper's
(section 2.1); the others cannot stand inside a function either."""
DEFINED = re.compile(r"^(?:async )?def (\w+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class HumanEval(CodeQuestions):
    """Functions with their docstring; the text is what follows, or the answer of a chat.

    Read is what defines the function, as `programs` finds it in blocks, prose, classes and scripts;
    else a block that the text begins with; else a completion of the prompt, up to where something else
    begins. The prompt's imports and helpers stand before all of them.
    """

    needed: ClassVar[tuple[str, ...]] = ("prompt", "test", "entry_point")

    name: str = "humaneval"
    n: int = 164
    """Number of functions, from the first on; there are 164."""
    max_new_tokens: int = 512
    source: str = "openai/openai_humaneval"
    """Hub id of a data set, or a local .json, .jsonl, .csv or .parquet file, packed as .gz or not."""
    before: str = ""
    """Written before a function; in a chat, what to do with it."""
    after: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shots:
            raise ConfigError("HumanEval is asked without worked examples: set shots to 0")

    def question_of(self, row: dict[str, Any]) -> Question:
        """A function to complete, and its tests."""
        prompt, name = str(row["prompt"]), str(row["entry_point"])
        if not has_function(prompt, name):
            raise DataError(f"the prompt does not define {name!r}")
        return Question(prompt, "", f"{row['test']}\n\ncheck({name})\n")

    def program(self, example: Example, text: str) -> str | None:
        """The function and what stands before it; see the class."""
        asked = example.prompt.removeprefix(self.opening + self.instruction + self.before)
        prompt = asked.removesuffix(self.after) if self.after else asked
        name = entry_point(example)
        if code := function_in(text, name):
            begins = [found.start() for found in DEFINED.finditer(prompt) if found[1] == name]
            return prompt[: begins[-1]] + code
        return completed(prompt, block(text, name) or STOPS.split(text)[0])


def completed(prompt: str, text: str) -> str | None:
    """The prompt with the text behind it, as far as it belongs to the function; None without a text.

    That is up to the left margin. Where it is no program, the same is tried with the indentation that
    a text may have lost, of its first line or of all, and without prose before the first indented line.
    """
    if not text.strip():
        return None
    lines = text.lstrip("\n").splitlines(keepends=True)
    inside = [number for number, line in enumerate(lines) if line.strip() and line[0].isspace()]
    whole, prose = [lines, lines[: _margin(lines)]], [lines[start:] for start in inside[:1]]
    bodies = reversed(whole) if inside[:1] == [0] else [*whole, *(p[: _margin(p)] for p in prose)]
    for body in map("".join, bodies):
        for code in (body, f"    {body.lstrip()}", textwrap.indent(body, "    ")):
            if compiles(prompt + code):
                return prompt + code
    return prompt + text


def _margin(lines: list[str]) -> int:
    """How many lines there are before one, not the first, that begins at the left margin."""
    margin = (n for n, line in enumerate(lines) if n and line.strip() and not line[0].isspace())
    return next(margin, len(lines))


def entry_point(example: Example) -> str:
    """The name of the function that the tests call."""
    return str(example.reference).rstrip().rpartition("check(")[2].removesuffix(")")
