"""Programs as answers: read from a text, run against tests in a sandbox."""

import ast
from abc import abstractmethod
from dataclasses import dataclass, field

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.answers import sandbox
from dlmjoint.evaluation.tasks.answers.sandbox import Limits
from dlmjoint.evaluation.tasks.kinds.questions import DatasetQuestions


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
                "dlmjoint/evaluation/tasks/answers/sandbox.py describes: set execute: true if you agree"
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
