"""The generated texts keep every promise, and each check notices its own kind of damage only."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from dlmjoint.tiny.corpus import (
    ITEMS,
    LARGEST,
    NAMES,
    Agreement,
    Problem,
    agreement,
    extract_answer,
    problem,
)

CORPUS = Path(__file__).resolve().parents[2] / "dlmjoint" / "tiny" / "corpus.py"
SAMPLE = 4_000
ALL_GOOD = Agreement(item=True, name=True, arithmetic=True, faithful=True, grammar=True)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    """Problems of a stream that no model is trained on."""
    return [problem(1, index) for index in range(SAMPLE)]


def broken(text: str) -> set[str]:
    """The names of the checks that a text fails."""
    return {check for check, holds in asdict(agreement(text)).items() if not holds}


def replacements(text: str, word: str, other: str) -> Iterator[str]:
    """The text with each mention of a word replaced in turn, one at a time."""
    for found in re.finditer(rf"\b{word}\b", text):
        yield text[: found.start()] + other + text[found.end() :]


def test_every_generated_text_agrees_with_itself(problems: list[Problem]) -> None:
    assert all(agreement(one.text) == ALL_GOOD for one in problems)


def test_every_generated_answer_is_read_back(problems: list[Problem]) -> None:
    assert all(extract_answer(one.text) == one.answer for one in problems)


def test_the_question_is_one_line_and_the_solution_ends_with_the_answer(
    problems: list[Problem],
) -> None:
    for one in problems:
        assert one.question.endswith("?\n")
        assert one.question.count("\n") == 1
        assert one.solution.endswith(f"\n#### {one.answer}")
        assert one.text == one.question + one.solution


def test_every_text_mentions_its_own_name_and_item_and_no_other(problems: list[Problem]) -> None:
    for one in problems:
        words = re.findall(r"\w+", one.text)
        assert [word for word in words if word in ITEMS] == [one.item] * words.count(one.item)
        assert [word for word in words if word in NAMES] == [one.name] * words.count(one.name)
        assert words.count(one.item) >= 4
        assert words.count(one.name) >= 4


@pytest.mark.parametrize(("check", "words"), [("item", ITEMS), ("name", NAMES)])
def test_swapping_any_one_mention_breaks_its_own_check_only(
    problems: list[Problem], check: str, words: tuple[str, ...]
) -> None:
    for one in problems[:300]:
        mine = one.item if check == "item" else one.name
        other = words[words.index(mine) - 1]
        assert all(broken(text) == {check} for text in replacements(one.text, mine, other))


def test_a_wrong_sum_breaks_the_arithmetic_only(problems: list[Problem]) -> None:
    for one in problems[:300]:
        for found in re.finditer(r"=(\d+)", one.text):
            wrong = f"={int(found[1]) + 1}"
            text = one.text[: found.start()] + wrong + one.text[found.end() :]
            # The next equation still begins with the true result, so the story is still followed.
            assert broken(text) == {"arithmetic"}


def test_a_wrong_final_answer_breaks_the_arithmetic_only(problems: list[Problem]) -> None:
    for one in problems[:300]:
        text = one.text.replace(f"#### {one.answer}", f"#### {one.answer + 1}")
        assert broken(text) == {"arithmetic"}


def test_true_equations_about_another_story_break_faithfulness_only() -> None:
    text = (
        "Tom has 7 pens. Tom buys 5 more pens. How many pens does Tom have?\n"
        "7+4=11. Tom has 11 pens.\n#### 11"
    )
    assert broken(text) == {"faithful"}
    assert broken(text.replace("7+4=11", "7+5=12").replace("11", "12")) == set()


def test_the_wrong_operation_breaks_faithfulness_only() -> None:
    text = (
        "Tom has 7 pens. Tom buys 5 more pens. How many pens does Tom have?\n"
        "7-5=2. Tom has 2 pens.\n#### 2"
    )
    assert broken(text) == {"faithful"}


def test_a_second_equation_that_does_not_go_on_from_the_first_breaks_the_arithmetic() -> None:
    text = (
        "Tom has 7 pens. Tom buys 5 more pens. Tom loses 4 pens. How many pens does Tom have?\n"
        "7+5=12. 13-4=9. Tom has 9 pens.\n#### 9"
    )
    assert not agreement(text).arithmetic


def test_text_outside_the_language_breaks_the_grammar(problems: list[Problem]) -> None:
    for one in problems[:300]:
        for text in (one.text + ".", " " + one.text, one.text.replace("How", "Who", 1)):
            assert not agreement(text).grammar
            assert not agreement(text).faithful


@pytest.mark.parametrize(
    "garbage", ["", "####", "?\n", "=", "1+1=", "\n#### \n####", "Tom Tom Tom Tom", "\0é漢🎈"]
)
def test_garbage_never_adds_up_and_is_never_grammatical(garbage: str) -> None:
    assert broken(garbage) >= {"item", "arithmetic", "faithful", "grammar"}
    assert extract_answer(garbage) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 8", 8),
        ("#### 18\n", 18),
        ("#### -3", -3),
        ("#### 1\n#### 2", 2),
        ("#### 1.5", None),
        ("#### many", None),
        ("8", None),
    ],
)
def test_the_answer_is_the_integer_after_the_last_mark(text: str, answer: int | None) -> None:
    assert extract_answer(text) == answer


def test_a_problem_depends_on_its_seed_and_index_alone() -> None:
    program = (
        "import runpy, sys; problem = runpy.run_path(sys.argv[1])['problem'];"
        "print(repr([problem(s, i).text for s in (0, 1) for i in range(20)]), end='')"
    )
    here = repr([problem(seed, index).text for seed in (0, 1) for index in range(20)])
    # A process with another hash seed, which must not matter; the file alone loads fast.
    elsewhere = subprocess.run(
        [sys.executable, "-c", program, str(CORPUS)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout == here
    assert problem(0, 3) == problem(0, 3)
    assert len({problem(0, 3), problem(0, 4), problem(1, 3)}) == 3


def test_names_and_items_are_close_to_uniform_and_independent(problems: list[Problem]) -> None:
    fair = SAMPLE / 16
    for words, counts in (
        (NAMES, Counter(one.name for one in problems)),
        (ITEMS, Counter(one.item for one in problems)),
    ):
        assert set(counts) == set(words)
        # Five standard deviations of a fair draw.
        assert all(abs(count - fair) < 5 * fair**0.5 for count in counts.values())
    assert len({(one.name, one.item) for one in problems}) == 256


def test_about_55_percent_of_the_problems_take_two_steps(problems: list[Problem]) -> None:
    steps = Counter(one.solution.count("=") for one in problems)
    assert set(steps) == {1, 2}
    assert 0.5 < steps[2] / SAMPLE < 0.6


def test_no_result_leaves_the_range_that_the_model_has_to_know(problems: list[Problem]) -> None:
    results = {int(n) for one in problems for n in re.findall(r"=(\d+)", one.solution)}
    assert results == set(range(1, LARGEST + 1))
