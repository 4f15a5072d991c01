"""lm-eval on a base that writes block after block."""

import json
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from dlmjoint.decoding.caches.exact_blocks import ExactBlocks
from dlmjoint.decoding.policy import Policy
from dlmjoint.evaluation.lm_eval.model import DLMJoint
from dlmjoint.evaluation.lm_eval.settings import Settings, read
from dlmjoint.models.load import load_base
from tests.conftest import CHECKPOINTS
from tests.evaluation.lm_eval.asking import BOS, choices, evaluated, wanted, written

BASE = str(CHECKPOINTS / "tiny-sdar")
SAMPLER = str(CHECKPOINTS / "tiny-sdar-joint")
QUESTION = "Tom has 7 pens. Tom buys 2 more pens. How many pens does Tom have now?\n"
PROBLEMS = [
    (QUESTION.strip(), "7+2=9.\n#### 9"),
    ("Ann has 5 figs. Ann loses 3 figs. How many figs does Ann have now?", "5-3=2.\n#### 2"),
]


@pytest.fixture(scope="module")
def sdar():
    return load_base(BASE)


def _model(sdar, **settings) -> DLMJoint:
    return DLMJoint.of(sdar, Settings(base=BASE, opening=BOS, batch_size=4, **settings))


def _joint(**settings):
    return {"policy": Policy(4, cache=ExactBlocks()), "sampler": SAMPLER, **settings}


def test_problems_are_solved_with_exact_blocks_and_the_sampler(sdar, tmp_path: Path):
    source = written(tmp_path / "test.jsonl", PROBLEMS)
    arguments = {
        "base": BASE,
        "sampler": SAMPLER,
        "policy.commits_per_forward": 4,
        "policy.cache": "dlmjoint.decoding.caches.exact_blocks.ExactBlocks",
        "opening": BOS,
        "batch_size": 2,
    }
    model = DLMJoint.of(sdar, read(arguments))
    results = evaluated(model, source)
    # lm-eval's wording of a question is not the tiny language: what counts is that texts come.
    assert results["results"]["gsm8k_local"]["answered,none"] == 1.0
    asked = [
        wanted(question + "\n", n, max_gen_toks=64) for n, (question, _) in enumerate(PROBLEMS)
    ]
    first, second = model.generate_until(asked, disable_tqdm=True)
    assert first.endswith("#### 9")
    assert second.endswith("#### 2")
    assert model.tally.sampler_passes > model.tally.base_forwards
    json.dumps(model.get_model_info())


def test_texts_do_not_depend_on_cache_batches_or_the_bound_on_their_length(sdar):
    asked = [wanted(question + "\n" * (1 + n % 2), n) for n, (question, _) in enumerate(PROBLEMS)]
    warm = {"do_sample": True, "temperature": 1.0}
    asked += [wanted(QUESTION, 2 + n, **warm, max_gen_toks=48) for n in range(3)]
    cached = _model(sdar, **_joint()).generate_until(asked, disable_tqdm=True)
    plain = _model(sdar, policy=Policy(4), sampler=SAMPLER)
    assert plain.generate_until(asked[::-1], disable_tqdm=True)[::-1] == cached
    longer = [wanted(QUESTION, 2 + n, **warm, max_gen_toks=160) for n in range(3)]
    model = _model(sdar, **_joint())
    assert model.generate_until(longer, disable_tqdm=True) == cached[2:]
    assert model.tally.tokens < 3 * 160, "a text ends in the block of its end"


def test_a_right_answer_over_several_blocks_is_likelier_and_written_by_the_greedy_decoder(sdar):
    model = _model(sdar, samples=15)
    (text,) = model.generate_until([wanted(QUESTION, until=[], max_gen_toks=64)], True)
    assert len(sdar.encode(text)) > sdar.attention.block_length
    wrong = text.replace("9", "5")
    assert wrong != text
    asked = [
        Instance("loglikelihood", {}, pair, 0, ("t", 0, 1))
        for pair in [(QUESTION, text), (QUESTION, wrong), (QUESTION, text[:5]), ("", "Tom")]
    ]
    right, other, begun, first = model.loglikelihood(asked, disable_tqdm=True)
    assert right[0] > other[0] + 5
    assert begun[0] > right[0], "a part of a text is likelier than the whole"
    assert [one[1] for one in (right, other, begun)] == [True, False, True]
    assert first[0] < 0


def test_a_multiple_choice_task_is_answered(sdar, tmp_path: Path):
    rows = [{"question": question, "answer": int(answer[-1])} for question, answer in PROBLEMS]
    task = choices(
        tmp_path / "choices.jsonl",
        rows,
        doc_to_text="{{question}}\n{{'7+2' if answer == 9 else '5-3'}}",
        target_delimiter="",
        doc_to_choice=["=9.", "=2."],
        doc_to_target="{{0 if answer == 9 else 1}}",
    )
    results = simple_evaluate(
        model=_model(sdar, samples=15, greedy=False),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    assert results is not None
    assert results["results"]["choices"]["acc,none"] == 1.0


def test_whole_texts_of_the_language_are_likelier_than_others(sdar):
    model = _model(sdar, samples=15)
    texts = ["Tom has 7 pens. Tom loses 2 pens.", "pens pens 7 has Tom. loses Tom 2."]
    asked = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    good, bad = model.loglikelihood_rolling(asked, disable_tqdm=True)
    assert bad < good - 10 < 0
