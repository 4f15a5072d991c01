"""Any generation task of lm-eval, as a task of ours: its documents, its prompts, its grading."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dlmjoint.decoding.draw import Draw
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.records import Example, Grade
from dlmjoint.evaluation.tasks.kinds.graded import Graded
from dlmjoint.models.base import Base

if TYPE_CHECKING:  # an extra, imported where it is needed
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

UNREADABLE = "[invalid]"
"""What lm-eval's filters give where they find nothing."""
Template = Callable[..., str]


@dataclass(frozen=True, kw_only=True)
class Harness(Graded):
    """A task of lm-eval that asks for a text (`generate_until`) and whose grades are right or wrong.

    Documents, prompts, worked examples, stops, filters and the metric are lm-eval's own; decoding,
    intervals, comparisons and the report are ours. lm-eval's own command, `dlmjoint lm-eval run
    --model dlmjoint`, takes all its tasks, log-likelihoods included.
    """

    task: str
    """lm-eval's name of the task, or the path of its YAML file."""
    name: str = ""
    """Stands in file names and in scores.json; lm-eval's own by default."""
    n: int
    """Number of documents, from the first on."""
    max_new_tokens: int = 256
    """Columns of the response, whatever the task says; lm-eval's own default."""
    draw: Draw | None = field(default_factory=lambda: Draw(temperature=0.0))
    """Replaces every decoder's own draw; greedy is lm-eval's default. A task's own temperature is not
    read."""
    num_fewshot: int | None = None
    """Worked examples; null takes the task's own number."""
    fewshot_seed: int = 1234
    """Which ones; lm-eval's own default."""
    filter: str | None = None
    """Whose reading of the text counts, of those the task has; null takes the first."""
    metric: str | None = None
    """What says whether it is right, of those the task has; null takes the first."""
    chat: bool = False
    """The prompt is a conversation in the tokenizer's chat template, with one turn per worked
    example."""
    system_instruction: str | None = None
    """Stands before everything."""
    include_path: Path | None = None
    """A folder of further tasks in lm-eval's format. Ours are known."""
    overrides: dict[str, Any] | None = None
    """Settings of lm-eval's task in place of its own: `{dataset_path: json, dataset_name: null,
    dataset_kwargs: {data_files: {test: test.jsonl}}}`. Local tasks take `metadata` here."""

    def __post_init__(self) -> None:
        if find_spec("lm_eval") is None:
            raise ConfigError("lm-eval is not installed: pip install 'dlmjoint[eval]'")
        if not self.name:  # frozen to everybody else
            object.__setattr__(self, "name", Path(self.task.removesuffix(".yaml")).name)
        super().__post_init__()
        if self.chat and self.opening:
            raise ConfigError("opening is not used in a chat: the template writes its own")

    def examples(self) -> list[Example]:
        """The first n documents. Raises ConfigError for a task that cannot be graded here, DataError
        if it does not load or has fewer documents."""
        task = self._task()
        prompts = self._contexts(None)
        targets = (task.doc_to_target(doc) for doc in self._docs(task))
        return [
            Example(id=index, prompt=self.opening + prompt, reference=_shown(target))
            for index, (prompt, target) in enumerate(zip(prompts, targets, strict=True))
        ]

    def prompt_ids(self, base: Base, examples: Sequence[Example]) -> list[list[int]]:
        """The prompts as ids; raises ConfigError for a chat without a chat template."""
        if not self.chat:
            return super().prompt_ids(base, examples)
        contexts = self._contexts(base.chat)
        return [base.encode(contexts[example.id]) for example in examples]

    def grade(self, example: Example, text: str) -> Grade:
        """By the task's own stops, filter and metric. What its filter finds nothing in has no answer.

        Raises DataError if the metric is not right or wrong.
        """
        from lm_eval.api.instance import Instance

        from dlmjoint.evaluation.lm_eval.requests import cut_at

        task = self._task()
        doc = task.eval_docs[example.id]
        settings = task.config.generation_kwargs or {}
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else until
        text = cut_at(text, [stop for stop in stops if stop])
        asked = Instance(
            request_type="generate_until",
            doc=doc,
            arguments=(example.prompt, settings),
            idx=0,
            metadata=(self.name, example.id, 1),
            resps=[text],
        )
        reading = _chosen(task._filters, self.filter, "filter", lambda one: one.name)
        reading.apply([asked])
        found = asked.filtered_resps[reading.name]
        measured = task.process_results(doc, [found])
        metric = _chosen(list(measured), self.metric, "metric", str)
        value = measured[metric]
        if value not in (0, 1):
            raise DataError(
                f"{metric} of {self.name} is {value!r}, neither right nor wrong: choose one of "
                f"{list(measured)} as metric, or use `dlmjoint lm-eval run`"
            )
        extracted = None if found == UNREADABLE else _shown(found)
        reason = f"{metric} is {value:g} by the filter {reading.name}"
        return Grade(correct=bool(value), extracted=extracted, reason=reason)

    def _contexts(self, template: Template | None) -> list[str]:
        """The prompts of all documents. lm-eval draws worked examples one document after another, so
        they are made in order, from the first."""
        task = self._task()
        task.set_fewshot_seed(self.fewshot_seed)
        shots = task.config.num_fewshot if self.num_fewshot is None else self.num_fewshot
        return [
            cast(
                str,
                task.fewshot_context(
                    doc,
                    num_fewshot=shots or 0,
                    system_instruction=self.system_instruction,
                    apply_chat_template=template is not None,
                    fewshot_as_multiturn=template is not None,
                    chat_template=template,
                    gen_prefix=task.doc_to_prefix(doc),
                ),
            )
            for doc in self._docs(task)
        ]

    def _docs(self, task: "ConfigurableTask") -> list[Any]:
        docs = task.eval_docs
        if len(docs) < self.n:
            raise DataError(f"{self.task} has {len(docs)} documents, {self.n} were asked for")
        return [docs[index] for index in range(self.n)]

    def _task(self) -> "ConfigurableTask":
        folder = None if self.include_path is None else str(self.include_path)
        return _load(self.task, folder, json.dumps(self.overrides or {}))


@lru_cache(maxsize=8)
def _load(name: str, folder: str | None, overrides: str) -> "ConfigurableTask":
    """A task of lm-eval; loaded once, since run and scores ask again."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    path = Path(name)
    if path.suffix != ".yaml":
        entry = _manager(folder).task_index.get(name)
        if entry is None:
            raise ConfigError(f"lm-eval knows no task {name!r}: see `dlmjoint lm-eval ls tasks`")
        if entry.kind.name != "TASK" or entry.yaml_path is None:
            raise ConfigError(
                f"{name} is no single task in a YAML file but a {entry.kind.name.lower()}: name one "
                "of its tasks, or use `dlmjoint lm-eval run`"
            )
        path = entry.yaml_path
    elif not path.is_file():
        raise ConfigError(f"there is no file {name}")
    # Before its functions are imported: those of programs' tasks ask the hub for a runner.
    _check(name, load_yaml(path, resolve_func=False) | json.loads(overrides))
    config = load_yaml(path) | json.loads(overrides)
    for structural in ("tag", "group", "task_list"):
        config.pop(structural, None)
    try:
        return ConfigurableTask(config=config)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"lm-eval's task {name} does not load: {error}") from error


@lru_cache(maxsize=2)
def _manager(folder: str | None) -> "TaskManager":
    """lm-eval's tasks, ours, and a folder's; read once: there are thousands of files."""
    from lm_eval.tasks import TaskManager

    from dlmjoint.evaluation.lm_eval_tasks import FOLDER

    return TaskManager(include_path=[FOLDER, *([folder] if folder else [])])


def _check(name: str, config: dict[str, Any]) -> None:
    """Refuse what cannot be graded here."""
    asks = config.get("output_type")
    if asks != "generate_until":
        raise ConfigError(
            f"{name} asks for {asks}, not for a text: use `dlmjoint lm-eval run --tasks {name}`"
        )
    if config.get("unsafe_code"):
        raise ConfigError(
            f"{name} runs programs a model wrote without a sandbox: take dlmjoint's own HumanEval or "
            "MBPP, or `dlmjoint lm-eval run --confirm_run_unsafe_code`"
        )
    if config.get("repeats", 1) > 1:
        raise ConfigError(
            f"{name} wants {config['repeats']} texts of each document: use `dlmjoint lm-eval run`, or "
            "overrides: {repeats: 1}"
        )
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise ConfigError(f"{name} shows images or sounds, which these bases cannot read")


def _chosen(things: list[Any], wanted: str | None, what: str, name: Callable[[Any], str]) -> Any:
    """The thing of that name, the first if none is wanted. Raises ConfigError if there is none."""
    for thing in things:
        if wanted in (None, name(thing)):
            return thing
    raise ConfigError(f"there is no {what} {wanted!r}; the task has {[name(t) for t in things]}")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
