"""What lm-eval asks of the tiny base, and of a file of problems."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from dlmjoint.evaluation.lm_eval.harness import Harness
from dlmjoint.evaluation.lm_eval.model import DLMJoint
from dlmjoint.evaluation.lm_eval.settings import Settings
from dlmjoint.evaluation.lm_eval_tasks import FOLDER
from tests.conftest import CHECKPOINTS

ROOT = CHECKPOINTS.parent
BASE = str(CHECKPOINTS / "tiny-dream")
SAMPLER = str(CHECKPOINTS / "tiny-joint")
BOS = "<|beginoftext|>"
TASK = str(FOLDER / "gsm8k_local.yaml")

PROBLEMS = [
    ("Tom has 7 pens. Tom buys 2 more pens. How many pens?", "7+2=<<7+2=9>>9.\n#### 9"),
    ("A farm sells 1,200 eggs and 34 nuts. How many?", "1200+34=1234\n#### 1,234"),
    ("It is 3 degrees and falls by 8. What is it?", "3-8=-5\n#### -5"),
    ("Ann splits 5 figs among 2. How many each?", "5/2=2.5\n#### 2.5"),
]


def written(path: Path, problems: list[tuple[str, str]]) -> str:
    """The path of a file of questions and answers."""
    return _lines(path, ({"question": question, "answer": answer} for question, answer in problems))


def choices(path: Path, rows: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    """A multiple-choice task about rows, which are written into a file."""
    return {
        "task": "choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": _lines(path, rows)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **settings,
    }


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    """The path of a file with a row per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def evaluated(model: DLMJoint, source: str, **more: Any) -> dict[str, Any]:
    """lm-eval's results on its task of a local file."""
    results = simple_evaluate(
        model=model,
        tasks=["gsm8k_local"],
        task_manager=TaskManager(
            include_path=str(FOLDER),
            include_defaults=False,
            metadata={"source": source, **more.pop("metadata", {})},
        ),
        bootstrap_iters=0,
        **more,
    )
    assert results is not None
    return dict(results)


def wanted(context: str, place: int = 0, repeats: int = 1, **given: Any) -> Instance:
    """A request for a text."""
    kwargs = {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 12} | given
    return Instance("generate_until", {}, (context, kwargs), 0, ("t", place, repeats))


def model_of(base, **settings: Any) -> DLMJoint:
    """Around the tiny base, which begins texts with a token of its own."""
    return DLMJoint.of(base, Settings(base=BASE, opening=BOS, **settings))


def published_gsm8k(source: str, **more: Any) -> Harness:
    """lm-eval's own `gsm8k`, of a local file."""
    files = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": source, "train": source}},
    }
    return Harness(task="gsm8k", n=len(PROBLEMS), num_fewshot=0, overrides=files, **more)
