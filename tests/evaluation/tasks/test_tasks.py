from dlmjoint.evaluation.records import Grade
from dlmjoint.evaluation.tasks.unconditional import Unconditional
from dlmjoint.evaluation.tasks.word_problems import WordProblems
from dlmjoint.tiny.corpus import problem

TASK = WordProblems(n=3)


def test_a_right_a_wrong_and_an_unreadable_answer_are_told_apart():
    example = TASK.examples()[1]
    right = problem(1, 1)
    assert TASK.grade(example, right.solution) == Grade(True, str(right.answer), "the answer")
    wrong = TASK.grade(example, f"#### {right.answer + 1}")
    assert (wrong.correct, wrong.extracted) == (False, str(right.answer + 1))
    assert str(right.answer) in wrong.reason
    unread = TASK.grade(example, f"It is {right.answer}.")
    assert (unread.correct, unread.extracted) == (False, None)
    assert unread.reason


def test_questions_are_of_the_held_out_stream_and_start_with_the_beginning_of_text():
    assert [e.prompt for e in TASK.examples()] == [
        "<|beginoftext|>" + problem(1, index).question for index in range(3)
    ]


def test_unconditional_samples_start_from_the_beginning_of_text_alone(base):
    task = Unconditional(n=2)
    assert task.prompt_ids(base, task.examples()) == [[base.bos_id], [base.bos_id]]


def test_tasks_without_an_answer_are_not_graded():
    task = Unconditional(n=1)
    assert task.grade(task.examples()[0], "#### 3") is None
