"""Questions with an answer to be right about, asked after any number of worked examples."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, NamedTuple

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.records import Example
from dlmjoint.evaluation.tasks.kinds.graded import Graded
from dlmjoint.evaluation.tasks.kinds.source import Place, is_file, rows
from dlmjoint.models.base import Base


class Question(NamedTuple):
    """One of a task's questions."""

    text: str
    """As it is asked."""
    solution: str
    """As a worked example answers it."""
    reference: str
    """What an answer is compared with."""
    topic: str = ""
    """Worked examples are of the same topic."""


@dataclass(frozen=True, kw_only=True)
class Questions(Graded):
    """The wording around a question, the same for all tasks.

    A prompt is `opening`, `instruction`, then `before` question `after` for every worked example,
    each with its solution and a blank line behind it, and for the question itself.
    """

    shots: int = 0
    """Worked examples before every question."""
    instruction: str = ""
    """Written once, before the worked examples and the question."""
    before: str = "Question: "
    """Written before a question."""
    after: str = "\nAnswer:"
    """Written after a question."""
    chat: bool = False
    """Everything is the user's message in the tokenizer's chat template."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shots < 0:
            raise ConfigError(f"shots is {self.shots}, expected 0 or more")
        if self.chat and self.opening:
            raise ConfigError("opening is not used in a chat: the template writes its own")

    @abstractmethod
    def questions(self) -> list[Question]:
        """The n questions. Raises DataError if there are fewer."""

    @abstractmethod
    def worked(self, topic: str) -> list[Question]:
        """The worked examples of a topic, `shots` of them. Raises DataError if there are fewer."""

    def examples(self) -> list[Example]:
        """The questions in their wording; see the class."""
        questions = self.questions()
        topics = {question.topic for question in questions}
        worked = {topic: self._worked(topic) if self.shots else "" for topic in topics}
        return [
            Example(
                id=index,
                prompt=self.opening
                + self.instruction
                + worked[question.topic]
                + self._asked(question),
                reference=question.reference,
            )
            for index, question in enumerate(questions)
        ]

    def prompt_ids(self, base: Base, examples: Sequence[Example]) -> list[list[int]]:
        """The prompts as ids; raises ConfigError for a chat without a chat template."""
        encode = base.encode_chat if self.chat else base.encode
        return [encode(example.prompt) for example in examples]

    def answer(self, text: str) -> str:
        """The text up to where a base goes on to a next question; in a chat it does not."""
        following = "" if self.chat else self.before.strip()
        return text.split(following, 1)[0] if following else text

    def _worked(self, topic: str) -> str:
        space = "" if self.after[-1:].isspace() else " "
        return "".join(
            f"{self._asked(shot)}{space}{shot.solution}\n\n" for shot in self.worked(topic)
        )

    def _asked(self, question: Question) -> str:
        return self.before + question.text + self.after


@dataclass(frozen=True, kw_only=True)
class DatasetQuestions(Questions):
    """Questions of a data set of the hub, or of a local file."""

    needed: ClassVar[tuple[str, ...]]
    """Columns a question is made of."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Columns that are read where they are."""

    source: str
    """Hub id of a data set, or a local .json, .jsonl, .csv or .parquet file."""
    subset: str | None = None
    """The hub data set's configuration; a local file has none."""
    split: str = "test"
    """Of a hub data set."""
    revision: str | None = None
    """Pins a commit of the hub data set."""
    columns: dict[str, str] | None = None
    """Names of columns where the source has its own: `{question: asked}`."""
    shuffle: int | None = None
    """Seed of an order in which the n questions are the first; null keeps the source's order."""
    shots_source: str | None = None
    """Where worked examples are from, the first ones: a hub id or a local file; null takes the hub data
    set `source`."""
    shots_subset: str | None = None
    """Their configuration; null takes `subset`, if `source` is where they are from."""
    shots_split: str = "train"
    """Their split, of a hub data set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shots and self.shots_source is None and is_file(self.source):
            raise ConfigError(f"{self.source} is a file: name another one as shots_source")
        if self.shots and self._shots() == self._tested():
            raise ConfigError(
                f"worked examples from {self.source} are the questions themselves: name another "
                "shots_source or shots_split"
            )

    @abstractmethod
    def question_of(self, row: dict[str, Any]) -> Question:
        """The question of a row. Raises DataError, without naming the row, if it is none."""

    def questions(self) -> list[Question]:
        """The first n rows, in the shuffled order if there is one."""
        found = rows(self._tested(), self.needed, self.optional, self.columns)
        order = list(range(len(found)))
        if self.shuffle is not None:
            Random(self.shuffle).shuffle(order)
        if len(order) < self.n:
            raise DataError(f"{self.source} has {len(order)} questions, {self.n} were asked for")
        return [self._question(found[i], i, self.source) for i in order[: self.n]]

    def worked(self, topic: str) -> list[Question]:
        """The first rows of the topic."""
        place = self._shots()
        source = place.source
        found = rows(place, self.needed, self.optional, self.columns)
        made = (self._question(row, i, source) for i, row in enumerate(found))
        of_topic = [question for question in made if question.topic == topic]
        if len(of_topic) < self.shots:
            about = f" of {topic}" if topic else ""
            raise DataError(
                f"{source} has {len(of_topic)} worked examples{about}, {self.shots} were asked for"
            )
        if not all(question.solution for question in of_topic[: self.shots]):
            raise DataError(f"{source} has questions without a solution: no worked examples")
        return of_topic[: self.shots]

    def _question(self, row: dict[str, Any], index: int, source: str) -> Question:
        try:
            return self.question_of(row)
        except DataError as error:
            raise DataError(f"{source}, row {index}: {error}") from error

    def _tested(self) -> Place:
        return Place.of(self.source, self.subset, self.split, self.revision)

    def _shots(self) -> Place:
        if self.shots_source is None:
            subset = self.subset if self.shots_subset is None else self.shots_subset
            return Place.of(self.source, subset, self.shots_split, self.revision)
        return Place.of(self.shots_source, self.shots_subset, self.shots_split, None)
