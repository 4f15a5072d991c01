"""Scored runs made by hand: what a page shows of them is known."""

import json
import random
from pathlib import Path
from typing import Any

from dlmjoint.decoding.policy import Policy
from dlmjoint.evaluation.running import settings
from dlmjoint.models.load import ModelFiles, read_config
from tests.conftest import CHECKPOINTS

BASE = CHECKPOINTS / "tiny-dream"
HOSTILE = (
    "</script><script>document.title = 'taken'</script> <!-- \"quotes\" 'single' & &amp; "
    "{{ 7 * 7 }} é 😀 \u2028 end"
)
DECODERS = {"exact": 1, "marginals-k2": 2, "marginals-k4": 4, "<b>&\"joint'-k4": 4}
N = 9


def tokenizer() -> Any:
    files = ModelFiles.find(str(BASE), weights=False)
    family, _ = read_config(files)
    return family.load_tokenizer(files.folder)


def write_run(folder: Path, n: int = N, decoders: dict[str, int] = DECODERS, seed: int = 0) -> Path:
    """A run of two tasks, the first graded, the second with a ceiling; texts are hostile."""
    spelled = tokenizer()
    tasks = {"questions": True, "free_text": False}
    base = {"name": str(BASE), "revision": None, "fingerprint": f"weights-{seed}"}
    written: dict[str, Any] = {}
    for name, k in decoders.items():
        for task, graded in tasks.items():
            lines = [_line(spelled, i, k) for i in range(n)]
            _write(folder / "generations" / name / f"{task}.jsonl", lines, lined=True)
            if graded:
                grades = [_grade(i, k) for i in range(n)]
                _write(folder / "grades" / name / f"{task}.json", grades)
        written[name] = {
            "policy": settings.describe(Policy(k)),
            "tasks": {
                "questions": {"accuracy": _score(1 - k / 10, n)},
                "free_text": {"mauve": _score(1 - k / 8, n), "nll": _score(k / 2, n)},
            },
            "cost": {"examples": 2 * n, "base_forwards": 40 // k, "sampler_passes": 0, "tokens": 40}
            | {"tokens_per_forward": float(k), "tokens_per_second": 900.0 + 100 * k, "bytes": 4e9},
        }
    first, *others = decoders
    provenance = _provenance() | {"base": base | {"dtype": "float32", "bits": None}}
    described = {task: {"class_path": f"tasks.{task}", "init_args": {"n": n}} for task in tasks}
    scores = {
        "decoders": written,
        "ceiling": {"free_text": {"mauve": _score(0.95, n)}},
        "pairs": {"questions": {"accuracy": [_pair(first, b, decoders[b]) for b in others]}},
        "aup": {"questions": {"marginals": _score(210.0, n) | {"decoders": list(decoders)[:3]}}},
        "provenance": provenance | {"seed": 0, "reference_seed": 1000 + seed, "tasks": described},
    }
    _write(folder / "scores.json", scores)
    _write(folder / "provenance.json", _provenance())
    (folder / "config.yaml").write_text(f"base: {HOSTILE!r}\n")
    return folder


def _line(spelled: Any, example: int, k: int) -> dict[str, Any]:
    """The hostile text, written in a random order, k tokens a step; the first cell is an anchor."""
    tokens = spelled.encode(f"{example} {HOSTILE}")
    order = list(range(1, len(tokens)))
    random.Random(example).shuffle(order)
    return {
        "example_id": example,
        "text": spelled.decode(tokens),
        "stop": "length",
        "prompt": spelled.encode(HOSTILE),
        "tokens": tokens,
        "order": order,
        "log_probs": [-0.1] * len(order),
        "steps": [1 + place // k for place in range(len(order))],
        "writers": ["sampler" if place % k else "base" for place in range(len(order))],
        "base_forwards": -(-len(order) // k),
        "canvases": -(-len(order) // k),
        "sampler_passes": 0,
        "guide_passes": 0,
        "columns": 5,
        "cells": 5,
        "text_tokens": len(order),
        "seconds": 0.5,
        "rows": 1,
        "peak_bytes": 0,
    }


def _grade(example: int, k: int) -> dict[str, Any]:
    """Example i is right up to K = i; the others say why not."""
    correct = k <= example
    reason = "the answer" if correct else f"<i>not</i> {example}"
    return {"example_id": example, "correct": correct, "extracted": HOSTILE, "reason": reason}


def _score(value: float, n: int) -> dict[str, Any]:
    return {"value": value, "low": value - 0.04, "high": value + 0.04, "n": n}


def _pair(a: str, b: str, k: int) -> dict[str, Any]:
    difference = {"value": -k / 10, "low": -k / 10 - 0.1, "high": -k / 10 + 0.25, "n": N}
    return {"a": a, "b": b, "difference": difference, "p_value": 0.004, "test": "mcnemar"}


def _provenance() -> dict[str, Any]:
    return {
        "created": "2026-01-02T03:04:05+00:00",
        "command": f"dlmjoint eval {HOSTILE}",
        "settings": {},
        "source": {"commit": "0123456789abcdef", "modified": True},
        "python": "3.11.0",
        "versions": {"torch": "2.13.0"},
        "hardware": "a processor",
    }


def _write(path: Path, value: Any, lined: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(one) + "\n" for one in value) if lined else json.dumps(value)
    path.write_text(text, encoding="utf-8")
