"""Stress tasks: exact scorers, questions by seed, in words of large models and of the tiny one."""

import math
from collections import Counter
from itertools import permutations
from pathlib import Path
from random import Random

import pytest

import dlmjoint
from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.scoring.score import score
from dlmjoint.evaluation.tasks.puzzles.waiting_line import (
    Copy,
    Insert,
    Operation,
    Remove,
    Replace,
    Reverse,
    Shuffle,
    Sort,
    TinyWaitingLine,
    WaitingLine,
    read_line,
)
from dlmjoint.evaluation.tasks.puzzles.word_puzzles import (
    Assignment,
    LatinSquare,
    TinyAssignment,
    read_square,
)
from tests.conftest import CHECKPOINTS

LINE = ("Rosa", "Alice", "Tina")
EVERY = [
    Copy(), Reverse(), Sort(), Shuffle(), Insert(), Remove(), Replace(),
    Insert(anywhere=True), Remove(anywhere=True), Replace(anywhere=True),
]  # fmt: skip
each = pytest.mark.parametrize("operation", EVERY, ids=repr)


def _answers(operation: Operation) -> set[tuple[str, ...]]:
    """All lines of two to four people that are right, by trying every one."""
    asked = operation.ask(LINE, "Quinn", Random(1))
    people = (*LINE, "Quinn")
    tried = (line for size in (2, 3, 4) for line in permutations(people, size))
    return {line for line in tried if line in asked.answers}


def test_operations_have_their_answers_and_no_others() -> None:
    assert _answers(Copy()) == {LINE}
    assert _answers(Reverse()) == {("Tina", "Alice", "Rosa")}
    assert _answers(Sort()) == {("Alice", "Rosa", "Tina")}
    assert _answers(Shuffle()) == set(permutations(LINE)) - {LINE}
    assert len(_answers(Insert())) == len(_answers(Remove())) == len(_answers(Replace())) == 1
    assert _answers(Insert(anywhere=True)) == {(*LINE[:i], "Quinn", *LINE[i:]) for i in range(4)}
    assert _answers(Remove(anywhere=True)) == {LINE[1:], LINE[:2], (LINE[0], LINE[2])}
    assert len(_answers(Replace(anywhere=True))) == 3


@each
def test_an_example_answer_is_right_and_what_it_says_in_words_is_read(
    operation: Operation,
) -> None:
    task = WaitingLine(operation=operation, n=20)
    for example in task.examples():
        assert example.reference is not None
        assert task.grade(example, f" {example.reference}.\n\nLine: Rosa").correct
        spoken = example.reference.replace(", ", " and then ")
        assert task.grade(example, f"Sure!\nThe line is {spoken}").correct


@each
def test_a_wrong_and_an_unreadable_answer_say_why(operation: Operation) -> None:
    task = WaitingLine(operation=operation, n=5)
    for example in task.examples():
        assert example.reference is not None
        twice = example.reference + ", " + example.reference.split(", ")[0]
        wrong = task.grade(example, twice)
        assert not wrong.correct
        assert wrong.extracted == twice
        nothing = task.grade(example, "I do not know")
        assert (nothing.correct, nothing.extracted) == (False, None)
        assert nothing.reason


def test_the_lines_own_order_is_no_shuffle_and_a_repeated_name_is_none_either() -> None:
    task = WaitingLine(operation=Shuffle(), n=1)
    (example,) = task.examples()
    own = example.prompt.rsplit("Line: ", 1)[1].splitlines()[0]
    assert not task.grade(example, own).correct
    first, second, *rest = own.split(", ")
    assert task.grade(example, ", ".join([second, first, *rest])).correct
    assert not task.grade(example, ", ".join([second, second, *rest])).correct


def test_independent_names_are_a_permutation_as_often_as_the_docs_say() -> None:
    task, random = WaitingLine(operation=Shuffle(), n=1, length=3), Random(0)
    (example,) = task.examples()
    people = example.prompt.rsplit("Line: ", 1)[1].splitlines()[0].split(", ")
    texts = [", ".join(random.choices(people, k=3)) for _ in range(4000)]
    share = sum(task.grade(example, text).correct for text in texts) / 4000
    assert share == pytest.approx((math.factorial(3) - 1) / 27, abs=0.03)


def test_an_assignment_is_right_if_everyone_has_another_thing() -> None:
    task = Assignment(n=3)
    for example in task.examples():
        assert example.reference is not None
        assert task.grade(example, example.reference).correct
        pairs = [pair.split(": ") for pair in example.reference.split(", ")]
        swapped = ". ".join(
            f"{person} gets the {thing}"
            for (person, _), (_, thing) in zip(pairs, pairs[1:] + pairs[:1], strict=True)
        )
        assert task.grade(example, swapped).correct
        same = ", ".join(f"{person}: {pairs[0][1]}" for person, _ in pairs)
        assert task.grade(example, same).reason == "two have the same"
        assert task.grade(example, ", ".join(map(": ".join, pairs[1:]))).reason.endswith("nothing")
        assert task.grade(example, "no").extracted is None


def test_a_latin_square_is_judged_by_rows_and_columns() -> None:
    task = LatinSquare(n=2)
    for example in task.examples():
        a, b, c = example.prompt.rsplit("Symbols: ", 1)[1].split("\n")[0].split()
        assert task.grade(example, str(example.reference)).correct
        assert task.grade(example, f"| {a} | {b} | {c} |\n| {b} | {c} | {a} |\n{c} {a} {b}").correct
        assert "column 1" in task.grade(example, f"{a} {b} {c}\n{a} {c} {b}\n{b} {a} {c}").reason
        assert "row 1" in task.grade(example, f"{a} {a} {c}\n{b} {c} {a}\n{c} {b} {b}").reason
        assert task.grade(example, f"{a} {b} {c}").extracted is None


def test_of_all_squares_of_three_symbols_twelve_are_latin() -> None:
    task = LatinSquare(n=1)
    (example,) = task.examples()
    symbols = example.prompt.rsplit("Symbols: ", 1)[1].split("\n")[0].split()
    rows = [" ".join(row) for row in permutations(symbols)]
    texts = ("\n".join((x, y, z)) for x in rows for y in rows for z in rows)
    assert sum(task.grade(example, text).correct for text in texts) == 12
    assert read_square("nothing", symbols) is None


def test_questions_are_the_same_whatever_n_is_and_worked_examples_are_others() -> None:
    for make in (Assignment, LatinSquare, lambda n: WaitingLine(operation=Sort(), n=n)):
        few, many = make(n=2).examples(), make(n=5).examples()
        assert few == many[:2]
        assert len({example.prompt for example in many}) == 5
    task = WaitingLine(operation=Sort(), n=50)
    asked = {question.text for question in task.questions()}
    assert not asked & {question.text for question in task.worked("")}


@pytest.mark.parametrize(
    "text",
    [
        "Rosa, Alice, Tina",
        " Rosa, Alice and Tina.",
        "Rosa Alice Tina",
        "Sure, here it is. The line is now: **Rosa, Alice, and Tina**\nLet me know.",
        "Rosa was first. Now:\nRosa -> Alice -> Tina",
        "The line:\n1. Rosa\n2. Alice\n3. Tina",
        "- Rosa\n- Alice\n- Tina\n",
    ],
)
def test_a_line_is_read_however_it_is_written(text: str) -> None:
    assert read_line(text, LINE) == LINE


def test_a_stranger_in_the_line_makes_it_wrong() -> None:
    asked = Remove(anywhere=True).ask(LINE, "Quinn", Random(1))
    for text in ("Rosa, Nobody, Tina", "Nobody, Rosa, Tina", "Rosa, Tina, nobody else"):
        found = read_line(text, LINE)
        assert len(found) == 3
        assert found not in asked.answers
    assert read_line("Rosa, Tina", LINE) in asked.answers


SHARES = {
    Copy(): 1.0,
    Reverse(): 1.0,
    Sort(): 1.0,
    Insert(): 1.0,
    Remove(): 1.0,
    Replace(): 1.0,
    Shuffle(): 0.0154,
    Insert(anywhere=True): 0.0560,
    Remove(anywhere=True): 0.4938,
    Replace(anywhere=True): 0.4019,
}
"""How often six people written apart are a right line: docs/reference/stress.md."""


@each
def test_names_drawn_from_their_marginals_are_right_as_often_as_the_docs_say(
    operation: Operation,
) -> None:
    line = tuple("ABCDEF")
    answers = operation.ask(line, "Q", Random(1)).answers
    every = permutations(line) if operation == Shuffle() else answers
    right = [answer for answer in every if answer in answers]
    columns = [Counter(column) for column in zip(*right, strict=True)]
    share = sum(
        math.prod(column[name] / len(right) for column, name in zip(columns, answer, strict=True))
        for answer in right
    )
    assert share == pytest.approx(SHARES[operation], abs=1e-4)


def test_names_inside_other_words_are_not_read() -> None:
    assert read_line("Tinas Tina, Rosa", ("Tina", "Rosa")) == ("Tina", "Rosa")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WaitingLine(operation=Copy(), length=26), "left to join"),
        (lambda: Assignment(size=1), "expected 2 to 16"),
        (lambda: LatinSquare(size=9), "expected 2 to 8"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_tiny_world_runs_them_in_words_it_knows(tmp_path: Path) -> None:
    base = dlmjoint.load_base(CHECKPOINTS / "tiny-dream")
    tasks = [TinyWaitingLine(operation=Shuffle(), n=4), TinyAssignment(n=4)]
    for task in tasks:
        for example in task.examples():
            assert example.reference is not None
            assert len(base.encode(example.reference)) < task.max_new_tokens
    run(base, {"exact": Policy(), "marginals-k4": Policy(4)}, tasks, tmp_path)
    found = score(tmp_path, base=base)
    for decoder in found["decoders"].values():
        for task in tasks:
            assert decoder["tasks"][task.name]["accuracy"]["n"] == 4
