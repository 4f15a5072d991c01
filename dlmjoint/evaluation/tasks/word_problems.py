"""The tiny world's word problems, solved from their question."""

from dataclasses import dataclass, field

from dlmjoint.decoding.draw import Draw
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.kinds.graded import Graded
from dlmjoint.tiny.corpus import LONGEST_SOLUTION, TEST_SEED, extract_answer, problem


@dataclass(frozen=True, kw_only=True)
class WordProblems(Graded):
    """Questions of a stream no model was trained on, graded by the number after `####`."""

    name: str = "word_problems"
    n: int = 500
    max_new_tokens: int = LONGEST_SOLUTION
    """Columns of the response; the default holds the longest solution and its end-of-text."""
    draw: Draw | None = field(default_factory=lambda: Draw(temperature=0.0))
    """Replaces every decoder's own draw; the default is greedy."""
    stream: int = TEST_SEED
    """Which stream of problems; 0 is the training stream, 1 the held-out one."""
    opening: str = "<|beginoftext|>"

    def examples(self) -> list[Example]:
        """The first n problems of the stream."""
        problems = (problem(self.stream, index) for index in range(self.n))
        return [
            Example(id=index, prompt=self.opening + one.question, reference=str(one.answer))
            for index, one in enumerate(problems)
        ]

    def grade(self, example: Example, text: str) -> Grade:
        """Right if the number after the last `####` is the answer."""
        answer = extract_answer(text)
        if answer is None:
            return Grade(correct=False, extracted=None, reason="no number after ####")
        if str(answer) != example.reference:
            reason = f"{answer}, but the answer is {example.reference}"
            return Grade(correct=False, extracted=str(answer), reason=reason)
        return Grade(correct=True, extracted=str(answer), reason="the answer")
