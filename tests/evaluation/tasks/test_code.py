"""Programs as answers: how they are read from a text, and how they are graded."""

import gzip
import json
import time
from dataclasses import replace

import pytest

from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.scoring.score import score
from dlmjoint.evaluation.tasks.answers.programs import block, blocks, function_in
from dlmjoint.evaluation.tasks.answers.sandbox import Limits
from dlmjoint.evaluation.tasks.humaneval import HumanEval
from dlmjoint.evaluation.tasks.mbpp import MBPP
from tests.evaluation.tasks.humaneval_forms import NONE, PROMPT, RIGHT, WRONG

HOOK = Limits(seconds=60.0, cpu=1, memory=1 << 28, namespaces=False)
"""Runs everywhere; the walls themselves are tested in test_sandbox."""

DOUBLE = {
    "task_id": "Test/0",
    "prompt": PROMPT,
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(3) == 6\n",
}
SQUARE = {
    "text": "Write a function to square a number.",
    "code": "def square(x):\r\n    return x * x",
    "task_id": 2,
    "test_setup_code": "",
    "test_list": ["assert square(3) == 9", "assert square(-2) == 4"],
    "challenge_test_list": [],
}


@pytest.fixture
def humaneval(write) -> HumanEval:
    return HumanEval(source=write([DOUBLE]), n=1, execute=True, limits=HOOK)


@pytest.fixture
def mbpp(write) -> MBPP:
    return MBPP(source=write([SQUARE]), n=1, execute=True, limits=HOOK)


def _grade(task, text):
    return task.grade(task.examples()[0], text)


@pytest.mark.parametrize("text", RIGHT)
def test_a_right_function_is_right_however_it_is_written(humaneval, text):
    grade = _grade(humaneval, text)
    assert (grade.correct, grade.reason) == (True, "all tests passed")
    assert grade.extracted is not None
    assert "double" in grade.extracted


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_function_is_wrong_however_it_is_written(humaneval, text):
    grade = _grade(humaneval, text)
    assert not grade.correct
    assert grade.extracted is not None


def test_a_wrong_function_is_wrong_and_shown(humaneval):
    grade = _grade(humaneval, "    return 3 * x\n")
    assert (grade.correct, grade.reason) == (False, "AssertionError, in its tests")
    assert grade.extracted == DOUBLE["prompt"] + "    return 3 * x\n"


@pytest.mark.parametrize("text", NONE)
def test_a_text_without_code_has_no_answer(humaneval, text):
    grade = _grade(humaneval, text)
    assert (grade.correct, grade.extracted, grade.reason) == (False, None, "no code in the text")


def test_what_does_not_parse_has_no_answer(humaneval):
    grade = _grade(humaneval, "    I cannot write that.")
    assert (grade.correct, grade.extracted) == (False, None)
    assert grade.reason.startswith("does not parse: SyntaxError")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    while True: pass\n", "used more than 1 s of CPU time"),
        ("    return 'x' * 10 ** 12\n", "MemoryError, in its tests"),
        ("    import socket\n    return socket.socket()\n", "refused: socket.__new__"),
        ("    import os\n    while True: os.fork()\n", "refused: os.fork"),
        ("    exit(0)\n", "SystemExit: 0, in its tests"),
    ],
)
def test_a_completion_that_would_do_harm_is_wrong(humaneval, body, reason):
    grade = _grade(humaneval, body)
    assert (grade.correct, grade.reason) == (False, reason)


def test_a_chat_asks_in_words_and_the_prompt_is_found_again(write):
    task = HumanEval(
        source=write([DOUBLE]),
        n=1,
        execute=True,
        limits=HOOK,
        chat=True,
        before="Complete this:\n```python\n",
        after="```",
    )
    (example,) = task.examples()
    assert example.prompt == f"Complete this:\n```python\n{DOUBLE['prompt']}```"
    assert task.grade(
        example, "```python\ndef double(x):\n    return math.ceil(2 * x)\n```"
    ).correct


def test_the_whole_function_may_be_written_with_other_blanks_than_in_the_prompt(write):
    row = {**DOUBLE, "prompt": DOUBLE["prompt"].replace("def double(", "def double (")}
    task = HumanEval(source=write([row]), n=1, execute=True, limits=HOOK)
    for name in ("double", "double "):
        text = f"```python\ndef {name}(x):\n    return math.floor(2 * x)\n```"
        assert _grade(task, text).correct


def test_the_published_packed_format_is_read(tmp_path):
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress((json.dumps(DOUBLE) + "\n").encode()))
    task = HumanEval(source=str(path), n=1, execute=True, limits=HOOK)
    assert _grade(task, DOUBLE["canonical_solution"]).correct


def test_an_mbpp_question_shows_its_tests_after_worked_examples(write):
    cube = {**SQUARE, "text": "Write a cube.", "code": "cube = 1", "test_list": ["assert cube"]}
    shots = write([cube], "prompt.jsonl")
    source = write([SQUARE])
    task = MBPP(source=source, n=1, shots=1, shots_source=shots, execute=True, limits=HOOK)
    ask = "You are an expert Python programmer, and here is your task: "
    assert task.examples()[0].prompt == (
        f"{ask}Write a cube. Your code should pass these tests:\n\nassert cube\n[BEGIN]\ncube = 1\n"
        f"[DONE]\n\n{ask}Write a function to square a number. Your code should pass these tests:\n\n"
        "assert square(3) == 9\nassert square(-2) == 4\n[BEGIN]\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "def square(x):\n    return x * x\n[DONE]\n\nYou are an expert ... [BEGIN]\n1 / 0",
        "def square(x):\n    return x ** 2",
        "[BEGIN]\nsquare = lambda x: x * x\n[DONE]",
        "Sure:\n```python\ndef square(x):\n    return x * x\n```\nAs you see.",
        "```python\nsquare = lambda x: x * x\n```",
        "Here it is:\n\ndef square(x):\n    return x * x\n\nIt squares x.",
        "1. Code:\n   ~~~\n   def square(x):\n       return x * x\n   ~~~\n",
        "def square(x):\n    return x * x\n\nprint(square(int(input())))\n",
        "class Solution:\n    def square(self, x):\n        return x * x\n",
        "def helper(x):\n    return x\n\n```python\ndef square(x):\n    return x * x\n```",
    ],
)
def test_a_right_mbpp_program_is_right_however_it_is_written(mbpp, text):
    assert _grade(mbpp, text).correct


def test_a_wrong_and_an_unreadable_mbpp_answer_are_told_apart(mbpp):
    wrong = _grade(mbpp, "def square(x):\n    return 2 * x\n[DONE]")
    assert (wrong.correct, wrong.reason) == (False, "AssertionError, in its tests")
    assert wrong.extracted == "def square(x):\n    return 2 * x\n"
    unread = _grade(mbpp, "[DONE] def square(x): return x * x")
    assert (unread.correct, unread.extracted, unread.reason) == (False, None, "no code in the text")
    prose = _grade(mbpp, "I would multiply.")
    assert (prose.correct, prose.extracted) == (False, None)


def test_the_sanitised_columns_are_named(write):
    row = {
        "prompt": "Square.",
        "code": "",
        "test_imports": ["import math"],
        "test_list": ["math.pi"],
    }
    task = MBPP(source=write([row]), n=1, columns={"text": "prompt"}, execute=True, limits=HOOK)
    assert task.examples()[0].reference == "import math\nmath.pi\n"


def test_nothing_is_run_without_being_confirmed():
    for task in (HumanEval, MBPP):
        with pytest.raises(ConfigError, match="set execute: true if you agree"):
            task()


def test_data_that_cannot_be_graded_is_refused(write):
    settings = {"n": 1, "execute": True, "limits": HOOK}
    with pytest.raises(DataError, match="row 0: the prompt does not define 'triple'"):
        HumanEval(source=write([{**DOUBLE, "entry_point": "triple"}]), **settings).examples()
    with pytest.raises(DataError, match="the tests of 0"):
        HumanEval(source=write([{**DOUBLE, "test": "def ("}], "b.jsonl"), **settings).examples()
    with pytest.raises(DataError, match="row 0: test_list is 'assert"):
        MBPP(source=write([{**SQUARE, "test_list": "assert 1"}], "c.jsonl"), **settings).examples()
    with pytest.raises(ConfigError, match="without worked examples"):
        HumanEval(shots=1, **settings)


def test_a_fence_with_a_language_opens_a_block_even_inside_one():
    assert block("x\n```\nthen\n```python\ndef f(): pass\n```\n") == "def f(): pass\n"
    assert block("no code, `def f()` neither") is None
    assert block("```\nx = 1") == "x = 1\n"
    assert blocks("````\n```\nx\n```\n````\n~~~\n```\n~~~") == ["```\nx\n```\n", "```\n"]


@pytest.mark.parametrize(
    "text",
    [
        "if x\n" * 2000,
        "x = (\n" * 2000,
        "def double(x):\n" * 1000,
        " " * 20000 + "def double",
        "```\n" * 3000,
        "x = 1\n" * 2000 + "def double(x): return 2\nno code",
        "class A:\n" + " x\n" * 3000,
        "(" * 20000 + "\ndef double(x): pass",
        "'''\n" * 2001 + "\ndef double(x): pass",
        "def double(x): return \0",
    ],
)
def test_a_text_that_goes_on_and_on_is_read_all_the_same(text):
    begun = time.perf_counter()
    function_in(text, "double")
    assert time.perf_counter() - begun < 30  # about a second where nothing else runs


def test_a_fence_may_be_fixed_before_decoding_and_an_evaluation_grades_it(tmp_path, base, write):
    row = {**DOUBLE, "prompt": "def double(x):\n"}
    task = HumanEval(
        source=write([row, row]),
        n=2,
        max_new_tokens=16,
        anchors={0: "```python\n"},
        execute=True,
        limits=HOOK,
    )
    run(base, {"exact": Policy()}, [task], tmp_path / "run")
    scores = score(tmp_path / "run")["decoders"]["exact"]["tasks"]["humaneval"]
    assert scores["accuracy"]["n"] == 2
    longer = replace(task, limits=replace(HOOK, cpu=2))
    run(base, {"exact": Policy()}, [longer], tmp_path / "run")  # limits decode nothing anew
    lines = (tmp_path / "run/generations/exact/humaneval.jsonl").read_text().splitlines()
    assert all(json.loads(line)["text"].startswith("```python\n") for line in lines)
