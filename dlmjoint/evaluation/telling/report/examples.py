"""Examples to look at, with the order they were written in: as many as fit into a page."""

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Generation
from dlmjoint.evaluation.running import generations
from dlmjoint.evaluation.telling.report.runs import Run
from dlmjoint.models.load import load_tokenizer
from dlmjoint.show.page import steps_of
from dlmjoint.show.pieces import Speller
from dlmjoint.show.record import Written

MOST = 60
"""Examples of a task, at most."""


@dataclass(frozen=True)
class Told:
    """Everything a run has on disk about one decoder and task."""

    lines: dict[int, Generation]
    """By example id."""
    grades: dict[int, dict[str, Any]]
    """By example id; empty where the task does not grade."""
    speller: Speller


@dataclass(frozen=True)
class Shown:
    """The examples of a task that are in the page, the same ones for all decoders."""

    task: str
    ids: list[int]
    telling: int
    """How many of them are there for their grades; the others are the first."""
    all_telling: int
    """Of how many."""
    why: str
    """What those grades have."""
    n: int
    """Examples of the task."""

    @property
    def told(self) -> str:
        """How they were chosen, in words."""
        if len(self.ids) == self.n:
            return f"all {self.n:,} examples"
        parts = [f"the first {len(self.ids) - self.telling:,}"]
        if self.telling:
            parts.append(f"{self.telling:,} of the {self.all_telling:,} further ones {self.why}")
        return f"{len(self.ids):,} of {self.n:,} examples: {' and '.join(parts)}"


class Browser:
    """The examples of some runs, as a page embeds them."""

    def __init__(self, runs: Sequence[Run], most: int = MOST) -> None:
        self._told: dict[str, dict[str, Told]] = {}
        """By task and decoder."""
        self._shown: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
        for run in runs:
            speller = Speller(_tokenizer(run))
            for key, part in run.scores["decoders"].items():
                for task in part["tasks"]:
                    told = _read(run, key, task, speller)
                    self._told.setdefault(task, {})[run.named(key)] = told
        self._most = most
        self._made: dict[tuple[str, str, int], dict[str, Any]] = {}

    def embed(self, room: int) -> dict[str, Any]:
        """What the page's script reads, at most `room` characters of packed examples.

        `packed` holds, by task and decoder, a list of examples as base64 of gzipped JSON.
        """
        most = self._most
        while True:
            shown = [self._choose(task, most) for task in self._told]
            packed = [
                [_pack([self._example(one.task, name, i) for i in one.ids]) for name in told]
                for one, told in zip(shown, self._told.values(), strict=True)
            ]
            size = sum(len(text) for texts in packed for text in texts)
            if size <= room or not most:
                break
            most = min(most - 1, math.floor(most * room / size))
        return {"tasks": [self._listed(one) for one in shown], "packed": packed}

    def _listed(self, shown: Shown) -> dict[str, Any]:
        told = self._told[shown.task]
        return {
            "name": shown.task,
            "told": shown.told,
            "ids": shown.ids,
            "decoders": list(told),
            "correct": [
                [one.grades[i]["correct"] if one.grades else None for i in shown.ids]
                for one in told.values()
            ],
        }

    def _choose(self, task: str, most: int) -> Shown:
        """Up to a half is kept for examples on which decoders differ: they say most."""
        told = list(self._told[task].values())
        known = sorted(set.intersection(*(set(one.lines) for one in told)))
        graded = [one.grades for one in told if one.grades]
        if len(graded) == 1:
            why, telling = "that are wrong", [i for i in known if not graded[0][i]["correct"]]
        else:
            why = "on which grades differ"
            telling = [i for i in known if len({g[i]["correct"] for g in graded}) > 1]
        half = most // 2
        early = set(known[: most - half])
        chosen = [i for i in telling if i not in early][:half]
        first = [i for i in known if i not in set(chosen)][: most - len(chosen)]
        further = set(telling) - set(first)
        return Shown(task, sorted([*first, *chosen]), len(chosen), len(further), why, len(known))

    def _example(self, task: str, decoder: str, example: int) -> dict[str, Any]:
        key = (task, decoder, example)
        if key not in self._made:
            told = self._told[task][decoder]
            self._made[key] = _shown(told.lines[example], told.grades.get(example), told.speller)
        return self._made[key]


def _shown(line: Generation, grade: Mapping[str, Any] | None, speller: Speller) -> dict[str, Any]:
    """An example as the player shows it, with its grade and costs."""
    start: list[int | None] = list(line.tokens)
    for column in line.order:
        start[column] = None
    written = [
        Written(column, line.tokens[column], writer, math.exp(log_prob), step)
        for column, log_prob, step, writer in zip(
            line.order, line.log_probs, line.steps, line.writers, strict=True
        )
    ]
    last = max(line.steps)
    made = steps_of(speller, speller.pieces(line.prompt), start, written, last)
    done = 0
    for number, step in enumerate(made["steps"]):
        done += len(step["columns"])
        rate = [("tokens / step", f"{done / number:.2f}")] if number else []
        step["cost"] = [("tokens", f"{done:,}"), ("steps", f"{number:,}"), *rate]
    spent = {
        "base forwards": line.base_forwards,
        "canvases verified at once": 0 if line.canvases == line.base_forwards else line.canvases,
        "sampler passes": line.sampler_passes,
        "guide passes": line.guide_passes,
        "columns computed": line.columns,
    }
    ended = {"eos": "the text ended by itself", "length": "the response was full"}[line.stop]
    return made | {
        "text": line.text,
        "ended": ended,
        "grade": None if grade is None else dict(grade),
        "spent": [(name, f"{value:,}") for name, value in spent.items() if value],
    }


def _read(run: Run, decoder: str, task: str, speller: Speller) -> Told:
    path = run.folder / "generations" / decoder / f"{task}.jsonl"
    n = run.scores["provenance"]["tasks"][task]["init_args"]["n"]  # there may be more on disk
    lines = {line.example_id: line for line in generations.read(path) if line.example_id < n}
    if len(lines) < n:
        raise DataError(f"{path} has {len(lines)} of {n} generations: run the evaluation again")
    graded = run.folder / "grades" / decoder / f"{task}.json"
    grades = json.loads(graded.read_text(encoding="utf-8")) if graded.exists() else []
    return Told(lines, {grade["example_id"]: grade for grade in grades}, speller)


def _tokenizer(run: Run) -> PreTrainedTokenizerBase:
    """The run's base's, without its weights."""
    name = run.base["name"]
    revision = None if Path(name).is_dir() else run.base["revision"]
    tokenizer = load_tokenizer(name, revision)
    if tokenizer is None:
        raise DataError(f"{name} has no tokenizer: there are no texts to report")
    return tokenizer


def _pack(value: object) -> str:
    """Base64 of gzipped JSON, the same whenever it is made."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
