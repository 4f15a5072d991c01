"""MMLU and ARC-Challenge: how options are lettered, and which letter is read."""

import pytest

from dlmjoint.errors import DataError
from dlmjoint.evaluation.records import Example
from dlmjoint.evaluation.tasks.arc import ArcChallenge
from dlmjoint.evaluation.tasks.kinds.multiple_choice import extract_letter
from dlmjoint.evaluation.tasks.mmlu import MMLU

WHALE = {
    "question": "What is a whale?",
    "subject": "zoology",
    "choices": ["a fish", "a mammal", "a bird", "a plant"],
    "answer": 1,
}
SUN = {
    "id": "Test_1",
    "question": "What is the Sun?",
    "choices": {"text": ["a star", "a planet", "a moon"], "label": ["1", "2", "3"]},
    "answerKey": "1",
}


@pytest.mark.parametrize(
    ("text", "letter", "place"),
    [
        ("The answer is B.", "B", "after 'answer'"),
        ("Answer: C", "C", "after 'answer'"),
        ("**Answer: (D)**", "D", "after 'answer'"),
        ("The correct answer is option C, not A.", "C", "after 'answer'"),
        ("The answer is A? No. The answer is $\\boxed{B}$", "B", "after 'answer'"),
        ("It follows \\boxed{\\text{D}}", "D", "in a box"),
        ("It follows \\boxed B, as A whale breathes", "B", "in a box"),
        ("It follows $\\fbox{(B)}$. (A) is wrong.", "B", "in a box"),
        ("B", "B", "on a line of its own"),
        (" (B) a mammal", "B", "on a line of its own"),
        ("B. a mammal\n", "B", "on a line of its own"),
        ("A whale breathes, so (B) holds.", "B", "in brackets"),
        ("The answer is clear: it must be (B).", "B", "in brackets"),
    ],
)
def test_the_letter_is_after_answer_else_boxed_else_on_a_line_else_in_brackets(text, letter, place):
    assert extract_letter(text, "ABCD") == (letter, place)


@pytest.mark.parametrize(
    "text", ["", "a mammal", "A whale is a mammal.", "The answer is a mammal", "E", "Both B and C"]
)
def test_a_text_without_a_letter_of_an_option_has_no_answer(text):
    grade = MMLU().grade(Example(id=0, prompt="", reference="B"), text)
    assert (grade.correct, grade.extracted, grade.reason) == (False, None, "no letter in the text")


@pytest.mark.parametrize("task", [MMLU(), ArcChallenge()])
def test_a_right_and_a_wrong_letter_say_what_was_read(task):
    example = Example(id=0, prompt="", reference="B")
    right = task.grade(example, "It has lungs. The answer is B")
    assert (right.correct, right.extracted, right.reason) == (True, "B", "B, after 'answer'")
    wrong = task.grade(example, "A\n\nQuestion: What next?\nAnswer: B")
    assert (wrong.correct, wrong.extracted) == (False, "A")
    assert wrong.reason == "A, on a line of its own, but the answer is B"


def test_five_options_have_five_letters():
    example = Example(id=0, prompt="", reference="E")
    assert ArcChallenge().grade(example, "The answer is E").correct
    assert MMLU().grade(example, "The answer is E").extracted is None


def test_an_mmlu_question_follows_examples_of_its_subject(write):
    dev = [
        {**WHALE, "question": f"{subject} {number}?", "subject": subject}
        for subject in ("algebra", "zoology")
        for number in range(2)
    ]
    task = MMLU(source=write([WHALE]), n=1, shots=1, shots_source=write(dev, "dev.jsonl"))
    (example,) = task.examples()
    options = "A. a fish\nB. a mammal\nC. a bird\nD. a plant"
    assert example.reference == "B"
    assert example.prompt == (
        f"Question: zoology 0?\n{options}\nAnswer: B\n\n"
        f"Question: What is a whale?\n{options}\nAnswer:"
    )
    few = MMLU(source=task.source, n=1, shots=3, shots_source=task.shots_source)
    with pytest.raises(DataError, match="2 worked examples of zoology, 3 were asked for"):
        few.examples()


def test_an_mmlu_answer_may_be_a_letter_and_subjects_may_be_missing(write):
    row = {key: value for key, value in WHALE.items() if key != "subject"} | {"answer": "D"}
    assert MMLU(source=write([row]), n=1).examples()[0].reference == "D"


def test_numbered_options_of_arc_are_lettered(write):
    (example,) = ArcChallenge(source=write([SUN]), n=1).examples()
    assert example.reference == "A"
    assert (
        example.prompt == "Question: What is the Sun?\nA. a star\nB. a planet\nC. a moon\nAnswer:"
    )


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (MMLU, {**WHALE, "answer": 4}, "row 0: the answer is option 4 of 4"),
        (MMLU, {**WHALE, "answer": "a fish"}, "row 0: the answer is option -1"),
        (MMLU, {**WHALE, "answer": 0.5}, "row 0: answer is 0.5"),
        (MMLU, {**WHALE, "choices": "a, b"}, "row 0: choices is 'a, b'"),
        (MMLU, {**WHALE, "choices": ["a"]}, "row 0: 1 options"),
        (ArcChallenge, {**SUN, "answerKey": "4"}, "row 0: answerKey is '4', none of"),
        (ArcChallenge, {**SUN, "choices": ["a", "b"]}, "row 0: choices is"),
    ],
)
def test_rows_that_are_no_question_are_refused(write, task, row, message):
    with pytest.raises(DataError, match=message):
        task(source=write([row]), n=1).examples()
