"""MATH-500 on a small local file in the published format: what is read, what is the same."""

import os

import pytest

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.records import Example
from dlmjoint.evaluation.tasks.answers import equivalence
from dlmjoint.evaluation.tasks.math500 import Math500, extract_answer
from tests.evaluation.tasks.math_forms import BOXED, SAID

ROW = {
    "problem": "What is half of $1$?",
    "solution": "Half of $1$ is $\\boxed{\\frac{1}{2}}$.",
    "answer": "\\frac{1}{2}",
    "subject": "Prealgebra",
    "level": 1,
    "unique_id": "test/prealgebra/1.json",
}


def _grade(text: str, reference: str = ROW["answer"]):
    return Math500().grade(Example(id=0, prompt="", reference=reference), text)


@pytest.mark.parametrize(
    ("text", "answer", "place"),
    [
        *((text, answer, "in the last \\boxed{}") for text, answer in BOXED),
        *((text, answer, "after 'answer is'") for text, answer in SAID),
    ],
)
def test_the_answer_is_the_last_box_else_what_the_sentence_says(text, answer, place):
    assert extract_answer(text) == (answer, place)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It is 7.",
        "\\boxed{7",
        "\\boxed",
        "\\boxed $",
        "\\boxedness 7",
        "The answer is",
        "Answer: *",
    ],
)
def test_a_text_without_either_has_no_answer(text):
    grade = _grade(text)
    assert (grade.correct, grade.extracted) == (False, None)
    assert grade.reason == "no \\boxed{} and no 'answer is' in the text"


def test_a_right_and_a_wrong_answer_say_what_was_read():
    right = _grade("\\boxed{0.5}")
    assert (right.correct, right.extracted, right.reason) == (
        True,
        "0.5",
        "0.5, in the last \\boxed{}",
    )
    wrong = _grade("\\boxed{2}")
    assert (wrong.correct, wrong.extracted) == (False, "2")
    assert wrong.reason == "2, in the last \\boxed{}, but the answer is \\frac{1}{2}"


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("\\frac12", "1/2"),
        ("3\\sqrt{13}", "\\sqrt{117}"),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\pi/2)"),
        ("(x+1)^2", "x^2+2x+1"),
        ("\\text{Evelyn}", "Evelyn"),
        ("90^\\circ", "90"),
        ("11,\\! 111", "11111"),
        ("\\$18.90", "18.9"),
        ("10\\%", "10"),
        ("5", "x = 5"),
        ("8", "5 + 3 = 8"),
        ("5", "5 cm"),
        ("1,2", "x=1, x=2"),
        ("1,-2", "-2, 1"),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ],
)
def test_one_value_in_two_notations_is_the_same(reference, answer):
    assert equivalence.equal(reference, answer) is True


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("\\pi", "3.14159"),
        ("10", "11"),
        ("(1, 2)", "(2, 1)"),
        ("[0, 1)", "[0, 1]"),
        ("\\text{Evelyn}", "Bob"),
        ("x^2", "x^3"),
        ("4", "__import__('os').getpid()"),
    ],
)
def test_different_values_are_different(reference, answer):
    assert equivalence.equal(reference, answer) is False


def test_an_answer_without_end_is_wrong_and_says_so_and_the_next_is_compared(monkeypatch):
    assert equivalence.equal("1", "2") is False  # the worker has started
    monkeypatch.setattr(equivalence, "SECONDS", 1.0)
    grade = _grade("\\boxed{9^{9^{9^{9}}}}", "7")
    assert (grade.correct, grade.extracted) == (False, "9^{9^{9^{9}}}")
    assert grade.reason.endswith("could not be compared with 7")
    monkeypatch.undo()
    assert _grade("\\boxed{7.0}", "7").correct


def test_a_worker_that_does_not_start_is_an_error_and_no_wrong_answer(monkeypatch, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import absent_library")
    monkeypatch.setattr(equivalence, "WORKER", broken)
    monkeypatch.setattr(equivalence, "_WORKER", equivalence._Worker())
    with pytest.raises(ConfigError, match=r"broken.py does not start"):
        equivalence.equal("123", "124")


def test_a_forked_process_has_a_worker_of_its_own():
    assert equivalence.equal("20", "21") is False  # the worker has started
    started = equivalence._WORKER.process
    child = os.fork()
    if child == 0:
        same = equivalence.equal("22", "44/2")
        own = equivalence._WORKER.process
        equivalence._WORKER.end()
        os._exit(0 if same and own is not started else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert equivalence.equal("23", "46/2") is True
    assert equivalence._WORKER.process is started


def test_a_worked_example_is_problem_and_solution(write):
    train = {**ROW, "problem": "What is $1 + 1$?", "solution": "$\\boxed{2}$", "answer": "2"}
    task = Math500(source=write([ROW]), n=1, shots=1, shots_source=write([train], "train.jsonl"))
    (example,) = task.examples()
    assert example.reference == ROW["answer"]
    assert example.prompt == (
        "Problem:\nWhat is $1 + 1$?\n\nSolution: $\\boxed{2}$\n\n"
        "Problem:\nWhat is half of $1$?\n\nSolution:"
    )
    following = "\\boxed{0.5}\n\nProblem:\nWhat is $2$? \\boxed{2}"
    assert task.grade(example, following).correct


def test_worked_examples_need_solutions_questions_do_not(write):
    row = {"problem": "What is $1 + 1$?", "answer": "2"}
    assert Math500(source=write([row]), n=1).examples()[0].reference == "2"
    shots = write([row], "train.jsonl")
    with pytest.raises(DataError, match="questions without a solution: no worked examples"):
        Math500(source=write([ROW]), n=1, shots=1, shots_source=shots).examples()


def test_a_problem_without_an_answer_is_refused(write):
    with pytest.raises(DataError, match="row 0: there is no answer"):
        Math500(source=write([{**ROW, "answer": " "}]), n=1).examples()


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(equivalence, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install dlmjoint\[eval\]"):
        Math500().examples()
