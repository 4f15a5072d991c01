"""Countdown and Sudoku: puzzles have solutions, and nothing but a solution is right."""

from fractions import Fraction

import pytest

from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.records import Example
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.scoring.score import score
from dlmjoint.evaluation.tasks.puzzles.countdown import Countdown, evaluate, extract_expression
from dlmjoint.evaluation.tasks.puzzles.sudoku import Sudoku, extract_grid, solutions

TASKS = [Countdown(n=40), Countdown(n=40, numbers=4), Sudoku(n=20), Sudoku(n=2, size=9, empty=45)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{task.max_new_tokens}")
def test_every_puzzle_is_solved_by_its_reference(task):
    for example in task.examples():
        grade = task.grade(example, str(example.reference))
        assert grade.correct, grade.reason


@pytest.mark.parametrize("kind", [Countdown, Sudoku])
def test_a_puzzle_depends_on_its_seed_and_number_alone(kind):
    few, many = kind(n=3).examples(), kind(n=20).examples()
    assert many[:3] == few
    assert len({example.prompt for example in many}) == 20
    assert not {e.prompt for e in many} & {e.prompt for e in kind(n=20, seed=1).examples()}


@pytest.mark.parametrize("kind", [Countdown, Sudoku])
def test_worked_examples_are_solved_and_none_of_the_questions(kind):
    task = kind(n=50)
    shots = task.worked("")
    assert len(shots) == 8
    asked = [question.text for question in task.questions()]
    for shot in shots:
        assert shot.text not in asked
        assert f"{task.before}{shot.text}{task.after}" in task.examples()[0].prompt
        alone = Example(id=0, prompt=task.before + shot.text + task.after, reference=shot.reference)
        assert task.grade(alone, shot.solution).correct
    assert kind(n=1, shots=0).examples()[0].prompt.count(task.before) == 1


def _countdown(text: str):
    example = Example(id=0, prompt="Numbers: 3, 5, 8\nTarget: 16", reference="(5 - 3) * 8 = 16")
    return Countdown().grade(example, text)


@pytest.mark.parametrize(
    "text",
    [
        "(5 - 3) * 8",
        "8 * (5 - 3) = 16",
        "5 + 3 = 8, 8 + 8 = 16. No: 3 + 5 + 8 = 16",
        "The answer is 8 × (5 − 3).",
        "3 + 8 + 5 = 16\n\nNumbers: 1, 2\nTarget: 3\nAnswer: 1 + 2",
    ],
)
def test_any_expression_of_the_numbers_with_the_value_is_right(text):
    assert _countdown(text).correct


@pytest.mark.parametrize(
    ("text", "extracted", "reason"),
    [
        ("8 * 2 = 16", "8 * 2", "8 * 2 does not use [5, 3, 8] once each"),
        ("3 + 5 + 8 + 0", "3 + 5 + 8 + 0", "3 + 5 + 8 + 0 does not use [5, 3, 8] once each"),
        ("3 * 5 + 8 = 16", "3 * 5 + 8", "3 * 5 + 8 is 23, the target 16"),
        ("8 / 5 + 3", "8 / 5 + 3", "8 / 5 + 3 is 23/5, the target 16"),
    ],
)
def test_a_wrong_expression_says_what_is_wrong(text, extracted, reason):
    grade = _countdown(text)
    assert (grade.correct, grade.extracted, grade.reason) == (False, extracted, reason)


@pytest.mark.parametrize("text", ["", "16", "I cannot.", "= 16", "Target: 16"])
def test_a_text_without_arithmetic_has_no_answer(text):
    grade = _countdown(text)
    assert (grade.correct, grade.extracted) == (False, None)
    assert grade.reason == "no arithmetic in the text"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8 / (5 - 5)", "(1, 0)"),
        ("(3 + 5 8)", "side by side"),
        ("(3 + (5 * 8)", "a bracket is not closed"),
        ("3 ** 5", "out of place"),
        ("3 + 5) * 8", "out of place"),
    ],
)
def test_what_has_no_value_has_no_answer(text, reason):
    grade = _countdown(text)
    assert (grade.correct, grade.extracted) == (False, None)
    assert reason in grade.reason


def test_values_are_exact():
    assert evaluate("1 / 3 * 3") == (Fraction(1), [1, 3, 3])
    assert evaluate("2 - 3 - 4")[0] == -5
    assert evaluate("8 / 4 / 2")[0] == 1
    assert extract_expression("so 1 + 2 = 3") == "1 + 2"


GRID = "1234\n3412\n2143\n4321"


def _sudoku(text: str):
    return Sudoku().grade(Example(id=0, prompt="", reference=GRID), text)


@pytest.mark.parametrize(
    "text",
    [
        GRID,
        "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1",
        "|1 2|3 4|\n|3 4|1 2|\n+---+---+\n|2 1|4 3|\n|4 3|2 1|",
        "1234341221434321",
        f"First I tried\n{GRID[::-1]}\nbut it is\n{GRID}\nas you see",
        f"{GRID}\n\nPuzzle:\n0000\n0000\n0000\n0000\nSolution:\n1111",
    ],
)
def test_the_solution_is_right_however_it_is_laid_out(text):
    grade = _sudoku(text)
    assert (grade.correct, grade.extracted, grade.reason) == (True, GRID, "the solution")


def test_a_wrong_grid_names_its_first_wrong_row():
    wrong = GRID.replace("2143", "2134")
    grade = _sudoku(wrong)
    assert (grade.correct, grade.extracted) == (False, wrong)
    assert grade.reason == "row 3 is 2134, the solution's 2143"


@pytest.mark.parametrize("text", ["", "1234\n3412\n2143", "12345\n34125\n21435\n43215", "one two"])
def test_a_text_without_a_grid_has_no_answer(text):
    grade = _sudoku(text)
    assert (grade.correct, grade.extracted, grade.reason) == (False, None, "no grid in the text")


def test_a_sudoku_has_one_solution_and_the_cells_asked_for_are_empty():
    for question in Sudoku(n=20, empty=9).questions():
        grid = [[int(digit) for digit in line] for line in question.text.splitlines()]
        assert sum(row.count(0) for row in grid) == 9
        (only,) = solutions(grid)
        assert extract_grid(question.reference, 4) == ["".join(map(str, row)) for row in only]


def test_all_grids_of_size_four_are_found():
    """There are 288 (OEIS A107739)."""
    assert len([*solutions([[0] * 4 for _ in range(4)])]) == 288


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Countdown, {"numbers": 7}, "numbers is 7"),
        (Countdown, {"largest": 5}, "largest is 9 or more"),
        (Sudoku, {"size": 5}, "size is 5"),
        (Sudoku, {"empty": 17}, "empty is 17"),
    ],
)
def test_settings_that_cannot_work_are_refused(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


def test_an_evaluation_decodes_and_grades_puzzles(tmp_path, base):
    short = {"n": 2, "shots": 0, "instruction": "", "max_new_tokens": 6}
    tasks = [Countdown(**short), Sudoku(**short)]
    run(base, {"exact": Policy()}, tasks, tmp_path / "run")
    scores = score(tmp_path / "run")["decoders"]["exact"]["tasks"]
    assert {name: part["accuracy"]["n"] for name, part in scores.items()} == {
        "countdown": 2,
        "sudoku": 2,
    }
