"""Every task of a data set, decoded, graded and scored in one run, in a chat and without."""

import json

import pytest

from dlmjoint.decoding.policy import Policy
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.scoring.score import score
from dlmjoint.evaluation.tasks.answers.sandbox import Limits
from dlmjoint.evaluation.tasks.arc import ArcChallenge
from dlmjoint.evaluation.tasks.gsm8k import GSM8K
from dlmjoint.evaluation.tasks.humaneval import HumanEval
from dlmjoint.evaluation.tasks.math500 import Math500
from dlmjoint.evaluation.tasks.mbpp import MBPP
from dlmjoint.evaluation.tasks.mmlu import MMLU

CODE = {"execute": True, "limits": Limits(namespaces=False)}
ROWS = [
    (GSM8K, {"question": "1 + 1?", "answer": "#### 2"}, {}),
    (Math500, {"problem": "1 + 1?", "answer": "2"}, {}),
    (MMLU, {"question": "1 + 1?", "choices": ["1", "2"], "answer": 1}, {}),
    (
        ArcChallenge,
        {
            "question": "1 + 1?",
            "choices": {"text": ["1", "2"], "label": ["1", "2"]},
            "answerKey": "2",
        },
        {},
    ),
    (HumanEval, {"prompt": "def f():\n", "test": "def check(f): f()", "entry_point": "f"}, CODE),
    (MBPP, {"text": "f", "test_list": ["f()"]}, {**CODE, "before": "", "after": ""}),
]


@pytest.mark.parametrize("chat", [False, True])
def test_every_data_set_is_decoded_graded_and_scored(tmp_path, base, write, chat):
    tasks = [
        kind(
            source=write([row, row], f"{kind.__name__}.jsonl"),
            n=2,
            max_new_tokens=5,
            chat=chat,
            **more,
        )
        for kind, row, more in ROWS
    ]
    run(base, {"marginals-k2": Policy(2)}, tasks, tmp_path / "run")
    scores = score(tmp_path / "run")["decoders"]["marginals-k2"]["tasks"]
    assert {name: part["accuracy"]["n"] for name, part in scores.items()} == {
        task.name: 2 for task in tasks
    }
    for task in tasks:
        path = tmp_path / "run" / "grades" / "marginals-k2" / f"{task.name}.json"
        for grade in json.loads(path.read_text()):
            assert grade["reason"]
            assert not grade["correct"] or grade["extracted"] is not None
