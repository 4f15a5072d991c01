"""Programs as answers: read from a text, run against tests in a sandbox."""

import ast
import re
from abc import abstractmethod
from dataclasses import dataclass, field

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation import sandbox
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.sandbox import Limits
from dlmjoint.evaluation.tasks.questions import DatasetQuestions

FENCE = "```"


@dataclass(frozen=True, kw_only=True)
class CodeQuestions(DatasetQuestions):
    """Tasks whose answers are run. Anchors such as a code fence (`{0: "```python\\n"}`) work: what is
    fixed is part of the text that is read."""

    execute: bool = False
    """Confirms that programs written by a model may be run on this machine; see `sandbox` for what
    that protects from. The task is refused without it."""
    limits: Limits = field(default_factory=Limits)
    """What a program may use."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.execute:
            raise ConfigError(
                f"{self.name} runs programs that a model wrote, in a sandbox that "
                "dlmjoint/evaluation/sandbox.py describes: set execute: true if you agree"
            )

    @abstractmethod
    def program(self, example: Example, text: str) -> str | None:
        """The program a text holds, tests not included; None if it holds none."""

    def examples(self) -> list[Example]:
        """The questions; references are their tests. Raises ConfigError where programs cannot be
        run, DataError for tests that are no Python."""
        sandbox.check(self.limits)
        examples = super().examples()
        for example in examples:
            try:
                ast.parse(example.reference or "")
            except SyntaxError as error:
                raise DataError(f"{self.source}: the tests of {example.id}: {error}") from error
        return examples

    def grade(self, example: Example, text: str) -> Grade:
        """Right if all tests run to their end. What is no Python has no answer."""
        program = self.program(example, text)
        if program is None:
            return Grade(correct=False, extracted=None, reason="no code in the text")
        outcome = sandbox.run(program, example.reference or "", self.limits)
        extracted = program if outcome.parsed else None
        return Grade(correct=outcome.passed, extracted=extracted, reason=outcome.reason)


def block(text: str, name: str = r"\w+") -> str | None:
    """The first block of code that defines a function of that name (a regular expression), else the
    one the text begins with; None if there is neither."""
    blocks = _blocks(text)
    defining = [code for code in blocks if has_function(code, name)]
    if text.lstrip().startswith(FENCE):
        defining.append(blocks[0])
    return defining[0] if defining else None


def has_function(code: str, name: str) -> bool:
    """Whether a function of that name (a regular expression) is defined at the left margin."""
    return re.search(rf"^(?:async )?def (?:{name})\b", code, re.MULTILINE) is not None


def _blocks(text: str) -> list[str]:
    """All blocks of code; the last one may lack its end. A fence with a language always opens one: a
    bare fence before it may have closed a block that the prompt had opened."""
    blocks: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if not line.lstrip().startswith(FENCE):
            if inside:
                blocks[-1].append(line)
            continue
        inside = not inside or line.strip() != FENCE
        if inside:
            blocks.append([])
    return ["\n".join(lines) + "\n" for lines in blocks]
