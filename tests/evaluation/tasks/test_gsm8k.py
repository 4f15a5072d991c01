"""GSM8K on a small local file: what is asked, what is read of an answer, what is refused."""

import json
from pathlib import Path

import pytest

from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.records import Example
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.scoring.score import score
from dlmjoint.evaluation.tasks.answers.gsm8k import extract_number, lm_eval_readings
from dlmjoint.evaluation.tasks.gsm8k import GSM8K
from dlmjoint.evaluation.telling.table import table_of
from dlmjoint.models.load import load_base
from tests.conftest import GOLDEN
from tests.evaluation.tasks.gsm8k_forms import BOXED, LAST, MARKED, SAID

PROBLEMS = [
    ("Ann has 3 pens and buys 2. How many?", "3 + 2 = <<3+2=5>>5\nThat is 5 pens.\n#### 5"),
    ("A car costs $1,000 and loses $250. What is it worth?", "It is worth 750.\n#### 750"),
    ("Two farms have 1,200 cows each. How many?", "2 * 1200 = 2400\n#### 2,400"),
]


def _file(path: Path, problems=PROBLEMS, names=("question", "answer")) -> str:
    path.write_text("".join(json.dumps(dict(zip(names, p, strict=True))) + "\n" for p in problems))
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return _file(tmp_path / "problems.jsonl")


def _grade(text: str, reference: str = "18", **settings):
    return GSM8K(**settings).grade(Example(id=0, prompt="", reference=reference), text)


@pytest.mark.parametrize(("text", "number"), [*MARKED, *BOXED, *SAID, *LAST])
def test_the_number_a_person_reads_is_read(text, number):
    found = extract_number(text)
    assert found is not None
    assert found[0] == number


@pytest.mark.parametrize(
    ("text", "number", "place"),
    [
        ("\\boxed{20}\n#### 18", "18", "after ####"),
        ("The answer is 20. \\boxed{18}", "18", "in the last \\boxed{}"),
        ("The answer is 18. She had 20.", "18", "after 'answer is'"),
        ("20 - 2 = 18", "18", "the last number"),
    ],
)
def test_the_number_is_after_the_mark_else_boxed_else_after_answer_is_else_the_last(
    text, number, place
):
    assert extract_number(text) == (number, place)


READINGS = [
    ("20 - 2 = 18\n#### 18", "18", "18"),
    ("#### $18", None, "18"),
    ("#### 1,234.", "1234", "1234"),
    ("#### 18.00", "18.00", "18.00"),
    ("####18", None, "18"),
    ("#### 20. No:\n#### 18", "20", "18"),
    ("The answer is 18. She had 20", None, "20"),
    ("\\boxed{18} of 20 eggs.", None, "20"),
    ("#### -18\nQuestion: 5?", "-18", "-18"),
    ("#### \u221218", None, "18"),
    ("It is 18.", None, "18"),
    ("It is 18. ...", None, ".."),
    ("He has $", None, None),
    ("none", None, None),
]


@pytest.mark.parametrize(("text", "strict", "flexible"), READINGS)
def test_lm_evals_readings_are_the_first_marked_and_the_last_number_as_written(
    text, strict, flexible
):
    assert lm_eval_readings(text) == {"strict-match": strict, "flexible-extract": flexible}


def test_an_evaluation_has_all_three_readings_in_one_table(tmp_path, base, source):
    task = GSM8K(source=source, n=3, max_new_tokens=4)
    run(base, {"exact": Policy()}, [task], tmp_path / "run")
    path = tmp_path / "run/generations/exact/gsm8k.jsonl"
    texts = {0: "#### 5", 1: "The answer is 750. It was 1000", 2: "that makes 2,400"}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    written = [{**line, "text": texts[line["example_id"]]} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in written))
    scores = score(tmp_path / "run")
    found = scores["decoders"]["exact"]["tasks"]["gsm8k"]
    third = pytest.approx(1 / 3)
    assert found["accuracy"]["value"] == 1
    assert found["accuracy_strict_match"]["value"] == third
    assert found["accuracy_flexible_extract"]["value"] == pytest.approx(2 / 3)
    head = table_of({"": scores}).markdown().splitlines()[0]
    assert "| accuracy | answered | accuracy strict match | accuracy flexible extract |" in head


@pytest.mark.parametrize(
    "text", ["", "I do not know.", "####", "The answer is: none - sorry.", "\\boxed{}", "Answer: $"]
)
def test_a_text_without_a_number_has_no_answer(text):
    assert extract_number(text) is None
    grade = _grade(text)
    assert (grade.correct, grade.extracted, grade.reason) == (False, None, "no number in the text")


def test_a_grade_says_what_was_read_where_and_why_it_is_wrong():
    right = _grade("#### 18")
    assert (right.correct, right.extracted, right.reason) == (True, "18", "18, after ####")
    wrong = _grade("that makes 17")
    assert (wrong.correct, wrong.extracted) == (False, "17")
    assert wrong.reason == "17, the last number, but the answer is 18"


def test_numbers_are_compared_by_value():
    assert _grade("#### 1,000.00", "1000").correct
    assert not _grade("#### 1,000.01", "1000").correct


def test_nothing_is_read_of_a_next_question():
    text = "20 - 2 = 18\n\nQuestion: How many is 5 + 5?\nAnswer: #### 10"
    assert _grade(text).correct
    assert not _grade(text, before="").correct
    assert not _grade(text, chat=True).correct


def test_a_problem_is_its_question_and_the_number_of_its_solution(source):
    task = GSM8K(source=source, n=3)
    examples = task.examples()
    assert [e.reference for e in examples] == ["5", "750", "2400"]
    assert examples[0].prompt == f"Question: {PROBLEMS[0][0]}\nAnswer:"
    assert GSM8K(source=source, n=1).examples() == examples[:1]


def test_worked_examples_stand_before_the_question(tmp_path, source):
    shots = _file(tmp_path / "train.jsonl", PROBLEMS[:2])
    task = GSM8K(source=source, n=3, shots=1, shots_source=shots, opening="<|beginoftext|>")
    example = task.examples()[2]
    question, solution = PROBLEMS[0]
    first = f"Question: {question}\nAnswer: {solution}\n\n"
    assert example.prompt == f"<|beginoftext|>{first}Question: {PROBLEMS[2][0]}\nAnswer:"
    assert task.shown(example) == example.prompt.removeprefix("<|beginoftext|>")


def test_a_chain_of_thought_ends_in_the_wording_asked_for(tmp_path, source):
    shots = _file(tmp_path / "train.jsonl", PROBLEMS[:1])
    task = GSM8K(
        source=source,
        n=1,
        shots=1,
        shots_source=shots,
        before="Q: ",
        after="\nA:",
        conclusion="The answer is",
    )
    worked, _ = task.examples()[0].prompt.split("\n\n")
    assert worked == f"Q: {PROBLEMS[0][0]}\nA: 3 + 2 = 5. That is 5 pens. The answer is 5."
    assert task.grade(task.examples()[0], worked.partition("A:")[2]).correct


def test_worked_examples_are_as_many_as_asked_for(tmp_path, source):
    shots = _file(tmp_path / "train.jsonl", PROBLEMS[:1])
    with pytest.raises(DataError, match="has 1 worked examples, 2 were asked for"):
        GSM8K(source=source, n=1, shots=2, shots_source=shots).examples()


def test_an_anchored_answer_is_read_behind_its_anchor():
    assert _grade("She has 20, eats 2. The answer is 18 ").extracted == "18"
    assert _grade("She has 20 - 2 = 18. The answer is").extracted == "18"


def test_a_shuffle_is_the_same_whatever_n_is(source):
    orders = [[e.prompt for e in GSM8K(source=source, n=n, shuffle=3).examples()] for n in (1, 3)]
    assert orders[1][:1] == orders[0]
    plain = [e.prompt for e in GSM8K(source=source, n=3).examples()]
    assert sorted(orders[1]) == sorted(plain)
    assert plain != [e.prompt for e in GSM8K(source=source, n=3, shuffle=3).examples()]


def test_columns_and_formats_are_the_files_own(tmp_path):
    source = _file(tmp_path / "p.json", PROBLEMS, ("asked", "solved"))
    task = GSM8K(source=source, n=1, columns={"question": "asked", "answer": "solved"})
    assert task.examples()[0].reference == "5"
    (tmp_path / "p.csv").write_text('question,answer\n"How many is 1 + 1?","#### 2"\n')
    assert GSM8K(source=str(tmp_path / "p.csv"), n=1).examples()[0].reference == "2"


def test_a_chat_is_the_users_message_in_the_template(source):
    base = load_base(GOLDEN / "dream")
    task = GSM8K(source=source, n=2, chat=True, before="", after="\nThink.")
    message = f"{PROBLEMS[0][0]}\nThink."
    assert task.prompt_ids(base, task.examples())[0] == base.encode_chat(message)
    assert base.tokenizer is not None
    base.tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        task.prompt_ids(base, task.examples())


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"n": 0}, "n is 0"),
        ({"shots": -1}, "shots"),
        ({"shots": 2, "shots_split": "test"}, "the questions themselves"),
        ({"shots": 2, "source": "a.jsonl", "shots_source": "a.jsonl"}, "the questions themselves"),
        ({"shots": 2, "source": "here.jsonl"}, "shots_source"),
        ({"chat": True, "opening": "<s>"}, "opening"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        GSM8K(**settings)


def test_a_source_that_does_not_serve_is_refused_in_words(tmp_path, source):
    with pytest.raises(DataError, match="does not load"):
        GSM8K(source=str(tmp_path / "absent.jsonl"), n=1).examples()
    with pytest.raises(DataError, match="has 3 questions, 4 were asked for"):
        GSM8K(source=source, n=4).examples()
    with pytest.raises(DataError, match="no column 'solution'"):
        GSM8K(source=source, n=1, columns={"answer": "solution"}).examples()
    odd = _file(tmp_path / "odd.jsonl", [("How many?", "#### many")])
    with pytest.raises(DataError, match="row 0: the solution has no number"):
        GSM8K(source=odd, n=1).examples()
    (tmp_path / "broken.jsonl").write_text('{"question": ')
    with pytest.raises(DataError, match="does not load"):
        GSM8K(source=str(tmp_path / "broken.jsonl"), n=1).examples()


def test_an_evaluation_decodes_grades_and_scores_it(tmp_path, base, source):
    task = GSM8K(source=source, n=3, max_new_tokens=4)
    run(base, {"exact": Policy()}, [task], tmp_path / "run")
    scores = score(tmp_path / "run")["decoders"]["exact"]["tasks"]["gsm8k"]
    assert scores["accuracy"]["n"] == 3
    grades = json.loads((tmp_path / "run" / "grades" / "exact" / "gsm8k.json").read_text())
    assert [grade["example_id"] for grade in grades] == [0, 1, 2]
    assert all(grade["reason"] for grade in grades)
