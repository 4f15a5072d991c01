"""What `gsm8k_local.yaml` reads and how it grades."""

from typing import Any

from datasets import Dataset

from dlmjoint.evaluation.records import Example
from dlmjoint.evaluation.tasks.gsm8k import GSM8K
from dlmjoint.evaluation.tasks.kinds.source import Place, rows


def load(
    source: str = GSM8K.source, shots_source: str | None = None, **_model_args: Any
) -> dict[str, Dataset]:
    """The problems, and worked examples where they have a source; by lm-eval's `--metadata`, which
    also holds the model's arguments.

    Raises DataError if a source does not load or is no GSM8K.
    """
    subset = GSM8K.subset
    shots = [] if shots_source is None else _read(Place.of(shots_source, subset, "train", None))
    test = _read(Place.of(source, subset, "test", None))
    return {"test": Dataset.from_list(test), "train": Dataset.from_list(shots)}


def grade(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """One text's grade by the native task's reader."""
    task = GSM8K()
    example = Example(id=0, prompt="", reference=task.question_of(doc).reference)
    made = task.grade(example, results[0])
    return {"exact_match": float(made.correct), "answered": float(made.extracted is not None)}


def _read(place: Place) -> list[dict[str, Any]]:
    return rows(place, GSM8K.needed)
