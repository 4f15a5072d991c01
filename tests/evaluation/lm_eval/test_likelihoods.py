"""Log-likelihoods that lm-eval asks for."""

from itertools import pairwise

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from dlmjoint.evaluation.likelihood import Answer, log_likelihoods
from tests.evaluation.lm_eval.asking import BOS, choices, model_of, wanted


def test_a_likely_continuation_has_more_likelihood_and_is_written_by_the_greedy_decoder(tiny):
    model = model_of(tiny, samples=31)
    question = "Tom has 7 pens. Tom buys 2 more pens. How many pens does Tom have now?"
    (text,) = model.generate_until([wanted(question, until=[], max_gen_toks=6)], True)
    assert len(tiny.encode(text)) == 6
    pairs = [(question, text), (question, "\n7-2=5."), ("", "Tom")]
    asked = [Instance("loglikelihood", {}, pair, 0, ("t", 0, 1)) for pair in pairs]
    (right, written), (wrong, not_written), (first, _) = model.loglikelihood(asked, True)
    assert right > wrong + 5
    assert (written, not_written) == (True, False)
    ids = tuple(tiny.encode(text))
    prompt = tuple(tiny.encode(BOS + question))
    assert right == pytest.approx(log_likelihoods(tiny, [Answer(prompt, ids)], samples=31)[0])
    one = torch.tensor(log_likelihoods(tiny, [Answer((tiny.bos_id,), tuple(tiny.encode("Tom")))]))
    assert first == pytest.approx(one.item())
    silent = model_of(tiny, samples=31, greedy=False).loglikelihood(asked, True)
    assert [value for _, value in silent] == [False] * 3


def test_a_multiple_choice_task_is_answered_and_its_answers_are_kept(tmp_path, tiny):
    rows = [{"question": f"Tom has {n} pens. Tom has", "answer": n - 2} for n in (3, 5)]
    task = choices(
        tmp_path / "choices.jsonl",
        rows,
        doc_to_text="{{question}}",
        doc_to_choice=["1", "3", "3 pens pens"],
        doc_to_target="{{0 if answer == 1 else 1}}",
    )
    found = []
    for _ in range(2):
        results = simple_evaluate(
            model=model_of(tiny, samples=7, batch_size=4),
            tasks=[task],
            task_manager=TaskManager(include_defaults=False),
            use_cache=str(tmp_path / "answers"),
            bootstrap_iters=0,
        )
        assert results is not None
        found.append([sample["filtered_resps"] for sample in results["samples"]["choices"]])
    assert [list(map(tuple, one)) for one in found[1]] == [
        list(map(tuple, one)) for one in found[0]
    ]
    for sample, row in zip(found[0], rows, strict=True):
        prompt = tuple(tiny.encode(BOS + row["question"]))
        digits = [Answer(prompt, tuple(tiny.encode(f" {digit}"))) for digit in (1, 3)]
        expected = log_likelihoods(tiny, digits, samples=7)
        assert [value for value, _ in sample[:2]] == pytest.approx(expected, rel=1e-4)


def test_a_whole_text_is_scored_in_windows_that_cover_every_token_once(tiny, monkeypatch):
    model = model_of(tiny, samples=3)
    scored: list[Answer] = []
    monkeypatch.setattr(model, "_likelihoods", lambda answers: scored.extend(answers) or [-1.0])
    monkeypatch.setattr(tiny, "max_length", 10)
    text = "Tom has 7 pens. Tom buys 2 more pens. How many pens does Tom have now?"
    model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)], True)
    assert [token for answer in scored for token in answer.tokens] == tiny.encode(text)
    assert scored[0].prompt == (tiny.bos_id,)
    assert all(answer.prompt[-1:] == one.tokens[-1:] for one, answer in pairwise(scored))
    assert max(len(answer.prompt + answer.tokens) for answer in scored) <= 10


def test_whole_texts_of_the_language_are_likelier_than_others(tiny):
    model = model_of(tiny, samples=15, batch_size=15)
    texts = ["Tom has 7 pens. Tom loses 2 pens.", "pens pens 7 has Tom. loses Tom 2."]
    asked = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    good, bad = model.loglikelihood_rolling(asked, disable_tqdm=True)
    assert bad < good - 10 < 0
