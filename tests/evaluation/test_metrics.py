import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.order import LeftToRight
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.schedules.entropy_bound import EntropyBound
from dlmjoint.errors import ConfigError, DataError, LoadError
from dlmjoint.evaluation.judges.features import features
from dlmjoint.evaluation.judges.judge import language_judge
from dlmjoint.evaluation.metrics.accuracy import Accuracy
from dlmjoint.evaluation.metrics.agreement import CorpusAgreement
from dlmjoint.evaluation.metrics.base import Evidence
from dlmjoint.evaluation.metrics.intervals import ratio, share
from dlmjoint.evaluation.metrics.mauve import Mauve
from dlmjoint.evaluation.metrics.nll import NLL, text_nll
from dlmjoint.evaluation.metrics.trajectory_kl import TrajectoryKL, excess_nats
from dlmjoint.evaluation.records import Generation, Grade
from dlmjoint.evaluation.running.batch import decode_batch
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.tasks.unconditional import Unconditional
from dlmjoint.random import Noise
from dlmjoint.tiny.corpus import problem

NOWHERE = Path(os.devnull)
"""No folder: a metric that keeps something needs one of its test's own."""
PROBLEMS = [problem(0, index).text for index in range(120)]


def generation(text: str = "", **changes: object) -> Generation:
    """A line that holds little but a text."""
    values = {
        "example_id": 0,
        "text": text,
        "stop": "length",
        "prompt": [501],
        "tokens": [1, 2],
        "order": [0, 1],
        "log_probs": [-1.0, -1.0],
        "steps": [1, 2],
        "writers": ["base", "base"],
        "base_forwards": 1,
        "canvases": 1,
        "sampler_passes": 0,
        "guide_passes": 0,
        "columns": 3,
        "cells": 4,
        "text_tokens": 2,
        "seconds": 0.1,
        "rows": 1,
        "peak_bytes": 0,
    }
    return Generation.from_json(values | changes)


def evidence(
    texts: list[str], reference: list[str] | None = None, cache: Path = NOWHERE, **more: object
) -> Evidence:
    def replay():
        raise AssertionError("nothing here decodes")

    values = {
        "generations": [generation(text) for text in texts],
        "grades": [],
        "prompts": [""] * len(texts),
        "reference": [generation(text) for text in reference or []],
        "replay": replay,
        "identity": "",
        "cache": cache,
    }
    return Evidence(**(values | more))


# Intervals


def test_an_interval_contains_its_value_and_shrinks_with_n():
    for successes, n in [(0, 5), (5, 5), (3, 7), (300, 700)]:
        score = share([index < successes for index in range(n)])
        assert 0 <= score.low <= score.value <= score.high <= 1
        assert score.n == n
    assert share([True, False] * 500).high < share([True, False] * 5).high


def test_a_wilson_interval_is_the_textbooks():
    # Wilson (1927) for 8 of 10 at 95 %: 0.4902 to 0.9433.
    score = share([True] * 8 + [False] * 2)
    assert (score.low, score.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_a_ratio_is_the_sum_over_the_count_and_not_a_mean_of_means():
    score = ratio(np.array([10.0, 1.0]), np.array([10.0, 4.0]))
    assert score.value == pytest.approx(11 / 14)
    assert score.low <= score.value <= score.high


def test_a_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        score = ratio(generator.normal(1.0, 1.0, size=60), np.ones(60))
        covered += score.low <= 1.0 <= score.high
    assert 0.88 <= covered / 200 <= 0.99


# Accuracy, agreement


def test_accuracy_counts_an_unreadable_answer_as_wrong_and_says_how_many_were_read():
    grades = [Grade(True, "3", ""), Grade(False, "4", ""), Grade(False, None, "")]
    scores = Accuracy()(evidence([""] * 3, grades=grades))
    assert scores["accuracy"].value == pytest.approx(1 / 3)
    assert scores["answered"].value == pytest.approx(2 / 3)
    with pytest.raises(ConfigError, match="grades"):
        Accuracy()(evidence(["text"]))


def test_agreement_is_whole_for_the_corpus_and_lost_where_an_item_is_exchanged():
    assert all(s.value == 1 for s in CorpusAgreement()(evidence(PROBLEMS)).values())
    one = problem(0, 3)
    spoilt = one.text.replace(one.item, "pens" if one.item != "pens" else "cups", 1)
    scores = CorpusAgreement()(evidence([spoilt]))
    assert scores["agreement_item"].value == 0
    assert scores["agreement_name"].value == 1


# NLL


def test_nll_equals_a_computation_by_hand(judge, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(judge)
    tokenizer = language_judge(judge, "cpu").tokenizer
    texts = ["Tom has 3 eggs.", "", "He finds 4 more and counts them all again.", " é"]
    total, count = 0.0, 0
    for text in texts:
        ids = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
        with torch.inference_mode():
            log_probs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        for place, token in enumerate(ids[1:]):
            total -= log_probs[place, token].item()
            count += 1
    score = NLL(judge, batch_size=3)(evidence(texts, cache=tmp_path))["nll"]
    assert score.value == pytest.approx(total / count, abs=1e-5)
    assert score.n == 4
    assert score.low <= score.value <= score.high


def test_nll_of_a_text_does_not_depend_on_its_batch(judge):
    loaded = language_judge(judge, "cpu")
    alone, _ = text_nll(loaded, [""], PROBLEMS[:1], 1)
    together, _ = text_nll(loaded, [""] * 9, PROBLEMS[:9], 9)
    assert alone[0] == pytest.approx(together[0], abs=1e-4)


def test_a_judge_without_a_beginning_of_text_does_not_score_the_first_token(judge):
    loaded = language_judge(judge, "cpu")
    _, with_start = text_nll(loaded, [""], ["Tom has 3 eggs."], 1)
    try:
        loaded.tokenizer.bos_token = None
        _, without = text_nll(loaded, [""], ["Tom has 3 eggs."], 1)
    finally:
        loaded.tokenizer.bos_token = "<|beginoftext|>"
    assert without == with_start - 1


def test_a_text_longer_than_the_judge_takes_is_refused_and_not_cut(judge, tmp_path):
    with pytest.raises(DataError, match="128"):
        NLL(judge)(evidence(["z" * 400], cache=tmp_path))


def test_texts_that_are_all_empty_have_no_nll(judge, tmp_path):
    with pytest.raises(DataError, match="empty"):
        NLL(judge)(evidence(["", ""], cache=tmp_path))


def test_a_missing_judge_is_named_before_anything_is_decoded(base, tmp_path):
    for metric in (NLL("no/such/judge"), Mauve("no/such/judge", min_n=1)):
        with pytest.raises(LoadError, match="no/such/judge"):
            metric(evidence(["text"], ["text"], cache=tmp_path))
        task = Unconditional(n=1, max_new_tokens=2, metrics=[metric])
        with pytest.raises(LoadError, match="no/such/judge"):
            run(base, {"exact": Policy()}, [task], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_judge_said_is_kept_until_the_judge_or_the_texts_change(judge, tmp_path):
    folder = tmp_path / "judge"
    shutil.copytree(judge, folder)
    given = evidence(["Tom has 3 eggs."], cache=tmp_path / "cache")
    before = NLL(str(folder))(given)["nll"]
    (kept,) = (tmp_path / "cache").iterdir()
    np.save(kept, np.array([[1.0], [2.0]]))
    assert NLL(str(folder))(given)["nll"].value == 0.5  # read, no judge asked
    assert NLL(str(folder), prompted=True)(given)["nll"].value == 0.5  # empty prompts: the same
    told = replace(given, prompts=["Ann. "])
    assert NLL(str(folder), prompted=True)(told)["nll"].value > 1
    os.utime(folder / "model.safetensors", ns=(0, 0))  # a judge trained again in place
    language_judge.cache_clear()
    assert NLL(str(folder))(given)["nll"] == before


def test_a_judge_that_does_not_know_a_character_refuses_the_text(judge):
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"Tom": 0, "has": 1, "[UNK]": 2}, "[UNK]")),
        unk_token="[UNK]",
    )
    words.backend_tokenizer.pre_tokenizer = Whitespace()
    short = replace(language_judge(judge, "cpu"), tokenizer=words)
    assert short.encode("Tom has") == [0, 1]
    with pytest.raises(DataError, match="cannot read"):
        short.encode("Tom hat")


# MAUVE


def mauve(judge: str, **more) -> Mauve:
    return Mauve(judge, kmeans_seeds=2, resamples=50, min_n=50, **more)


def test_mauve_of_a_set_with_itself_is_one_and_with_other_text_is_low(judge, tmp_path):
    other_text = ["?" * (1 + index % 40) + "!" for index in range(120)]
    same = mauve(judge)(evidence(PROBLEMS, PROBLEMS, tmp_path))["mauve"]
    other = mauve(judge)(evidence(other_text, PROBLEMS, tmp_path))["mauve"]
    assert same.value == pytest.approx(1.0)
    assert same.low < 1
    assert other.value < 0.2
    for score in (same, other):
        assert 0 <= score.low <= score.value <= score.high <= 1
        assert score.n == 120


def test_mauve_is_that_of_the_package():
    from mauve import compute_mauve

    generator = np.random.default_rng(0)
    p = generator.normal(size=(150, 8)).astype(np.float32)
    q = generator.normal(size=(150, 8)).astype(np.float32) + 0.3
    theirs = compute_mauve(p_features=p, q_features=q).mauve
    assert Mauve(kmeans_seeds=1, resamples=9).score(q, p).value == pytest.approx(theirs, abs=1e-9)


def test_mauve_says_nothing(judge, tmp_path, capfd):
    mauve(judge)(evidence(PROBLEMS, PROBLEMS[::-1], tmp_path))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "WARNING" not in captured.err


def test_mauve_refuses_empty_texts_with_their_number(judge, tmp_path):
    with pytest.raises(DataError, match="2 of 120 texts are empty"):
        mauve(judge)(evidence(["", " ", *PROBLEMS[2:]], PROBLEMS, tmp_path))


def test_mauve_refuses_fewer_than_500_texts_before_anything_is_decoded(judge, tmp_path):
    with pytest.raises(DataError, match="at least 500"):
        Mauve(judge).check(499, {}, Policy())
    with pytest.raises(DataError, match="at least 500"):
        Mauve(judge)(evidence(PROBLEMS, PROBLEMS, tmp_path))


def test_features_are_those_of_the_text_alone_and_come_back_from_the_cache(judge, tmp_path):
    def vectors(texts, folder):
        return features(texts, model=judge, batch_size=8, device="cpu", cache=tmp_path / folder)

    together = vectors(PROBLEMS[:9], "a")
    np.testing.assert_allclose(together[4], vectors(PROBLEMS[4:5], "b")[0], atol=1e-5)
    (cached,) = (tmp_path / "a").iterdir()
    np.save(cached, together + 1)
    np.testing.assert_array_equal(vectors(PROBLEMS[:9], "a"), together + 1)


def test_features_are_the_last_tokens_last_hidden_state(judge, tmp_path):
    loaded = language_judge(judge, "cpu")
    text = PROBLEMS[0]
    with torch.inference_mode():
        states = loaded.model(torch.tensor([loaded.encode(text)]), output_hidden_states=True)
    found = features([text], model=judge, batch_size=1, device="cpu", cache=tmp_path)
    np.testing.assert_allclose(found[0], states.hidden_states[-1][0, -1].numpy(), atol=1e-5)


# Trajectory KL


@pytest.fixture(scope="module")
def exact(base):
    """Exact trajectories, some with longer prompts: padding is on the way."""
    prompts = [[501]] * 6 + [[501, 70, 71, 72]] * 3
    canvas = base.canvas(prompts, 8)
    return decode_batch(base, canvas, Policy().prepare(base), Noise(5, tuple(range(9))))


def test_an_anchored_trajectory_is_followed_with_its_anchors_in_place(base):
    """Exact decoding with a fixed text has no excess over itself, and counts what it wrote."""
    exact = Policy().prepare(base)
    made = decode_batch(base, base.canvas([[501]] * 3, 8, {3: "is"}), exact, Noise(1, (0, 1, 2)))
    fixed = base.encode("is")
    for line in made:
        assert line.tokens[3 : 3 + len(fixed)] == fixed
        assert len(line.order) == 8 - len(fixed)
    np.testing.assert_allclose(excess_nats(base, exact, made), 0, atol=1e-5)
    assert (excess_nats(base, Policy(4).prepare(base), made) != 0).any()


def test_rows_that_finish_at_different_times_are_followed_each_along_its_own_order(base, exact):
    """Adaptive schedules end rows apart; the excess must not depend on who else is in the batch."""
    policy = Policy(EntropyBound(6.0)).prepare(base)
    together = excess_nats(base, policy, exact)
    alone = np.concatenate([excess_nats(base, policy, [one]) for one in exact])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_trajectory_kl_of_one_token_per_forward_is_zero(base, exact):
    excess = excess_nats(base, Policy().prepare(base), exact)
    np.testing.assert_allclose(excess, 0, atol=1e-5)
    elsewhere = excess_nats(base, Policy(order=LeftToRight()).prepare(base), exact[:4])
    np.testing.assert_allclose(elsewhere, 0, atol=1e-4)  # other batch, and the order is the exact


def test_the_trajectory_kl_equals_a_computation_by_hand(base, exact):
    one, commits = exact[7], 3
    total = sum(one.log_probs)
    for start in range(0, 8, commits):
        canvas = base.canvas([one.prompt], 8)
        for column in one.order[:start]:
            canvas.tokens[0, canvas.response.start + column] = one.tokens[column]
        draw = Draw().prepare(base)
        with torch.inference_mode():
            log_probs = draw.log_probs(base.unembed(base.predict(canvas).hidden[0]))
        for column in one.order[start : start + commits]:
            total -= log_probs[canvas.response.start + column, one.tokens[column]].item()
    found = excess_nats(base, Policy(commits).prepare(base), exact)[7]
    assert found == pytest.approx(total, abs=1e-4)
    assert abs(found) > 1e-3


def test_the_trajectory_kl_is_per_token_with_an_interval_and_is_computed_once(
    base, exact, tmp_path
):
    replays = []

    def replay():
        replays.append(1)
        return base, Policy(4).prepare(base)

    given = replace(evidence([], cache=tmp_path), reference=exact, replay=replay, identity="x")
    score = TrajectoryKL(batch_size=4)(given)["trajectory_kl"]
    excess = excess_nats(base, Policy(4).prepare(base), exact)
    assert score.value == pytest.approx(excess.sum() / (9 * 8), abs=1e-5)
    assert score.low <= score.value <= score.high
    assert score.n == 9
    assert TrajectoryKL(batch_size=4)(given)["trajectory_kl"] == score
    assert len(replays) == 1


@pytest.mark.parametrize(
    ("policy", "exact_policy"),
    [
        (Policy(draw=Draw(temperature=0.5)), Policy()),
        (Policy(draw=Draw(forbid=("<|endoftext|>",))), Policy()),
        (Policy(draw=Draw(temperature=0.0)), Policy(draw=Draw(temperature=0.0))),
        (Policy(draw=Draw(top_p=0.9)), Policy(draw=Draw(top_p=0.9))),
    ],
)
def test_draws_that_do_not_compare_are_refused(policy, exact_policy):
    with pytest.raises(ConfigError, match="trajectory_kl"):
        TrajectoryKL().check(10, {"decoder": policy}, exact_policy)


def test_blocks_that_forbid_the_exact_order_are_refused(base, exact):
    with pytest.raises(ConfigError, match="block_length"):
        excess_nats(base, Policy(block_length=2).prepare(base), exact)
