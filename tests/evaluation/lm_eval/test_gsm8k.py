"""GSM8K natively and through lm-eval: the same prompts, texts and grades."""

import json
from random import Random
from typing import Any

import pytest

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.evaluation.lm_eval.harness import Harness
from dlmjoint.evaluation.lm_eval.model import DLMJoint
from dlmjoint.evaluation.lm_eval.requests import cut_at
from dlmjoint.evaluation.lm_eval.settings import Settings
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.scoring.score import score
from dlmjoint.evaluation.tasks.gsm8k import GSM8K
from tests.evaluation.lm_eval.asking import (
    BASE,
    BOS,
    PROBLEMS,
    evaluated,
    model_of,
    published_gsm8k,
    written,
)
from tests.evaluation.tasks.gsm8k_forms import BOXED, LAST, MARKED, SAID

TEXTS = [
    " 7+2=9.\n#### 9",
    " The answer is 9 pens.",
    " So 7 + 2 = 9",
    "\n#### 8",
    " The answer is 9.0\n\nQuestion: And 5?\nAnswer: 5\n#### 5",
    " I do not know.",
    "",
    " ####",
    "#### $9.00",
]
"""Answers to the first problem: right, wrong, unparsable, and what a base adds by itself."""


@pytest.mark.parametrize(("shots", "temperature"), [(0, 1.0), (2, 1.0), (2, 0.0)])
def test_gsm8k_natively_and_through_lm_eval_has_the_same_texts_and_grades(
    tmp_path, tiny, source, shots, temperature
):
    train = written(tmp_path / "train.jsonl", PROBLEMS[::-1])
    task = GSM8K(
        source=source,
        n=len(PROBLEMS),
        max_new_tokens=16,
        shots=shots,
        shots_source=train,
        opening=BOS,
        draw=Draw(temperature=temperature),
    )
    run(tiny, {"k2": Policy(2)}, [task], tmp_path / "run")
    score(tmp_path / "run")
    lines = (tmp_path / "run" / "generations" / "k2" / "gsm8k.jsonl").read_text().splitlines()
    generations = {line["example_id"]: line for line in map(json.loads, lines)}
    grades = json.loads((tmp_path / "run" / "grades" / "k2" / "gsm8k.json").read_text())

    results = evaluated(
        model_of(tiny, policy=Policy(2), batch_size=3),
        source,
        num_fewshot=shots,
        gen_kwargs={"max_gen_toks": 16, "do_sample": temperature > 0, "temperature": temperature},
        metadata={"shots_source": train},
    )
    samples = results["samples"]["gsm8k_local"]
    assert [sample["doc_id"] for sample in samples] == list(range(len(PROBLEMS)))
    for sample, example, grade in zip(samples, task.examples(), grades, strict=True):
        assert BOS + sample["arguments"][0][0] == example.prompt
        text = generations[example.id]["text"]
        assert sample["resps"] == [[task.answer(text)]]
        assert (bool(sample["exact_match"]), bool(sample["answered"])) == (
            grade["correct"],
            grade["extracted"] is not None,
        )
    assert any(line["text"] for line in generations.values())


class Parrot(DLMJoint):
    """Gives fixed texts in the place of decoded ones."""

    texts: list[str]

    def _text(self, ids: list[int], until: Any) -> str:
        return cut_at(self.texts.pop(0), until)


@pytest.mark.parametrize("text", TEXTS)
def test_right_wrong_and_unparsable_texts_have_one_grade_both_ways(tmp_path, tiny, text):
    source = written(tmp_path / "one.jsonl", PROBLEMS[:1])
    native = GSM8K(source=source, n=1)
    (example,) = native.examples()
    grade = native.grade(example, text)
    model = Parrot.of(tiny, Settings(base=BASE))
    model.texts = [text]
    results = evaluated(model, source, gen_kwargs={"max_gen_toks": 2})
    (sample,) = results["samples"]["gsm8k_local"]
    assert (sample["exact_match"], sample["answered"]) == (
        float(grade.correct),
        float(grade.extracted is not None),
    )
    wrapped = Harness(task="gsm8k_local", n=1, overrides={"metadata": {"source": source}})
    assert wrapped.examples()[0].prompt == example.prompt
    assert wrapped.grade(wrapped.examples()[0], text).correct == grade.correct


def test_the_synthetic_texts_are_of_every_kind(tmp_path):
    task = GSM8K(source=written(tmp_path / "one.jsonl", PROBLEMS[:1]), n=1)
    grades = [task.grade(task.examples()[0], text) for text in TEXTS]
    assert {(grade.correct, grade.extracted is not None) for grade in grades} == {
        (True, True),
        (False, True),
        (False, False),
    }


def test_lm_evals_own_filters_agree_with_the_reader_on_answers_in_the_published_format(source):
    native = GSM8K(source=source, n=len(PROBLEMS))
    for which in ("strict-match", "flexible-extract"):
        task = published_gsm8k(source, filter=which)
        for example, mine in zip(task.examples(), native.examples(), strict=True):
            assert example.prompt == mine.prompt
            right = f" {example.reference}"
            assert task.grade(example, right).correct
            assert native.grade(mine, right).correct
            assert not task.grade(example, " 1\n#### 77").correct
            assert not native.grade(mine, " 1\n#### 77").correct
            assert task.grade(example, " I do not know.").extracted is None


@pytest.mark.parametrize(
    ("text", "native", "strict", "flexible"),
    [
        ("The answer is 9. She had 7 before.", True, False, False),
        ("That makes 9", True, False, True),
        ("#### 9.0", True, False, False),
        ("#### 9. Not 8.", True, True, False),
    ],
)
def test_where_lm_evals_own_filters_differ_from_the_reader(source, text, native, strict, flexible):
    example = GSM8K(source=source, n=1).examples()[0]
    assert GSM8K().grade(example, text).correct == native
    for which, expected in (("strict-match", strict), ("flexible-extract", flexible)):
        assert published_gsm8k(source, filter=which).grade(example, text).correct == expected


def _odd_texts(n: int) -> list[str]:
    """Texts of what lm-eval's filters and stops look for, drawn at random."""
    pieces = [*"0123456789", *"$.,-# \n", "#### ", "#### 9", "9", "Question:", "</s>", "<|im_end|>"]
    draw = Random(0)
    return ["".join(draw.choices(pieces, k=draw.randrange(1, 16))) for _ in range(n)]


def test_the_readings_beside_ours_are_those_of_lm_evals_own_filters_and_metric(source):
    native = GSM8K(source=source, n=1)
    example = native.examples()[0]
    forms = [text for text, _ in (*MARKED, *BOXED, *SAID, *LAST)]
    texts = [*forms, *(text.replace("18", "9") for text in forms), *_odd_texts(500)]
    for which in ("strict-match", "flexible-extract"):
        task = published_gsm8k(source, filter=which)
        theirs = [task.grade(example, text).correct for text in texts]
        assert [native.grade(example, text).readings[which] for text in texts] == theirs
        assert 20 < sum(theirs) < len(texts) - 20
