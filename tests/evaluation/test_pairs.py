"""What scores.json says of several decoders together: differences, AUP, cost by arithmetic."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from dlmjoint.costs.arithmetic import Setting, decode_flops, measure
from dlmjoint.costs.decoded import Machine, cost
from dlmjoint.costs.speed import bytes_read
from dlmjoint.decoding.caches.freecache import FreeCache
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Trained
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.judges import judge
from dlmjoint.evaluation.metrics.depth import Depth
from dlmjoint.evaluation.metrics.values import Flags, Ratios
from dlmjoint.evaluation.running import settings
from dlmjoint.evaluation.running.batch import decode_batch
from dlmjoint.evaluation.running.plan import limited
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.running.sharding import Processes
from dlmjoint.evaluation.scoring.aup import Point, area, aup, families
from dlmjoint.evaluation.scoring.score import fill_cache, score
from dlmjoint.models.joint import JointSampler
from dlmjoint.random import Noise
from tests.evaluation.test_metrics import generation


def paired(both: int, first: int, second: int, neither: int) -> tuple[Flags, Flags]:
    """Flags of two decoders with so many examples of each kind."""
    a = [True] * (both + first) + [False] * (second + neither)
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    return Flags(a), Flags(b)


# Differences


def test_mcnemars_test_is_the_binomial_test_of_the_discordant_pairs():
    a, b = paired(36, 12, 2, 0)
    found = a.against(b)
    assert found.test == "mcnemar"
    assert found.p_value == pytest.approx(binomtest(2, 14).pvalue)
    assert found.p_value == pytest.approx(0.012939453125)  # 2 (1 + 14 + 91) / 2^14
    assert found.difference.value == pytest.approx(38 / 50 - 48 / 50)
    assert a.against(a).p_value == 1


def test_the_interval_of_a_paired_difference_is_newcombes():
    # Newcombe 1998, table II, method 10: (36, 12, 2, 0) gives 0.0569 to 0.3404.
    b, a = paired(36, 12, 2, 0)
    found = a.against(b).difference
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    mirrored = b.against(a).difference
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_decoders_that_agree_on_few_examples_are_not_certain_to_be_alike():
    a, b = paired(5, 0, 0, 0)
    found = a.against(b).difference
    assert found.value == 0
    assert found.low < -0.2
    assert found.high > 0.2


def test_a_newcombe_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        shared = generator.random(80)  # what makes an example easy makes it easy for both
        a = Flags((0.7 * shared + 0.3 * generator.random(80) < 0.6).tolist())
        b = Flags((0.7 * shared + 0.3 * generator.random(80) < 0.5).tolist())
        one = a.against(b).difference
        covered += one.low <= TRUE_DIFFERENCE <= one.high
    assert 0.91 <= covered / 300 <= 1


def _true_difference() -> float:
    """Of the two shares above, by a sum over a fine grid."""
    u, v = np.meshgrid(*[(np.arange(2000) + 0.5) / 2000] * 2)
    mixed = 0.7 * u + 0.3 * v
    return float((mixed < 0.5).mean() - (mixed < 0.6).mean())


TRUE_DIFFERENCE = _true_difference()


def test_a_bootstrapped_difference_is_paired():
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 5, size=100)
    ones = np.ones(100)
    a = Ratios(hard, ones)
    b = Ratios(hard + 0.3 + generator.normal(0, 0.1, size=100), ones)
    found = a.against(b)
    assert found.test == "bootstrap"
    assert found.difference.value == pytest.approx(0.3, abs=0.05)
    assert found.difference.high - found.difference.low < 0.1  # each alone: about 2
    assert found.p_value == pytest.approx(2 / 1001)
    assert a.against(a).p_value == 1
    assert a.against(a).difference.value == 0


def test_a_bootstrapped_p_value_is_small_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    ones, small = np.ones(50), 0
    for _ in range(200):
        a, b = (Ratios(generator.normal(size=50), ones) for _ in range(2))
        small += a.against(b).p_value < 0.1
    assert 0.05 <= small / 200 <= 0.17


# AUP


def test_the_area_is_the_published_formula():
    """d3LLM: r1 y1 + 1/2 sum (r_i - r_{i-1}) (y_i W(y_i) + y_{i-1} W(y_{i-1})), by hand."""
    speed, accuracy = np.array([1.0, 5.14]), np.array([74.0, 72.63])  # dParallel-LLaDA on GSM8K
    best = 74.98

    def weighted(y):
        return y * min(np.exp(-3 * (1 - y / best)), 1)

    expected = 74.0 + 0.5 * 4.14 * (weighted(74.0) + weighted(72.63))
    assert area(speed, accuracy, best) == pytest.approx(expected)
    assert area(speed[::-1], accuracy[::-1], best) == pytest.approx(expected)


def test_points_more_than_five_points_below_the_slowest_do_not_count():
    slow = area(np.array([1.0]), np.array([80.0]), 80.0)
    assert area(np.array([1.0, 4.0]), np.array([80.0, 74.9]), 80.0) == slow == 80
    assert area(np.array([1.0, 4.0]), np.array([80.0, 75.0]), 80.0) > slow
    assert area(np.array([1.0, 4.0]), np.array([80.0, 80.0]), 80.0) == 320
    assert area(np.array([1.0, 4.0]), np.array([0.0, 0.0]), 0.0) == 0


def test_families_share_the_exact_decoder_and_keep_what_follows_the_k():
    names = ["exact", "joint-k2", "joint-k16", "joint-k2+cache", "marginals-k4", "prophet"]
    assert families(names, "exact") == {
        "joint": ["exact", "joint-k2", "joint-k16"],
        "joint+cache": ["exact", "joint-k2+cache"],
        "marginals": ["exact", "marginals-k4"],
    }
    assert families(names, None) == {"joint": ["joint-k2", "joint-k16"]}
    assert families(["joint-k1", "joint-k2"], "joint-k1") == {"joint": ["joint-k1", "joint-k2"]}


def test_aup_has_an_interval_and_says_what_it_is_made_of():
    generator = np.random.default_rng(0)

    def point(share, speed):
        correct = (generator.random(200) < share).astype(float)
        return Point(correct, np.full(200, 32.0), np.full(200, 32.0 / speed))

    points = {"exact": point(0.8, 1), "joint-k4": point(0.8, 4), "marginals-k4": point(0.3, 4)}
    found = aup(points, "exact")
    assert set(found) == {"joint", "marginals"}
    for one in found.values():
        assert one["low"] <= one["value"] <= one["high"]
        assert one["n"] == 200
    assert found["joint"]["decoders"] == ["exact", "joint-k4"]
    assert found["joint"]["value"] > 3 * found["marginals"]["value"]
    # The marginals' point is too bad to count: what is left is the exact decoder's.
    exact = 100 * points["exact"].correct.mean()
    assert found["marginals"]["value"] == pytest.approx(exact)
    assert aup({"a": points["exact"], "b": points["joint-k4"]}, None) == {}


# Cost


@pytest.fixture(scope="module")
def sampler(base) -> JointSampler:
    torch.manual_seed(0)
    return JointSampler.from_base(base).eval()


@pytest.mark.parametrize("commits", [1, 2, 4])
@pytest.mark.parametrize("joint", [False, True])
def test_flops_and_bytes_of_a_run_are_those_of_the_arithmetic(base, sampler, commits, joint):
    """`dlmjoint info` foretells them from the config; here they follow from what was counted."""
    policy = Policy(commits, refine=Joint(sampler)) if joint else Policy(commits)
    lines = decode_batch(
        base, base.canvas([[501]] * 3, 8), policy.prepare(base), Noise(0, (0, 1, 2))
    )
    size = measure(type(base), base.config)
    found = cost(lines, Machine(size, 4, None))
    flops = decode_flops(size, length=9, response=8, commits=commits, joint=joint and commits > 1)
    assert found["flops"] == pytest.approx(3 * flops)
    setting = Setting(max_new_tokens=8, dtype="float32")
    read = bytes_read(size, setting, commits, joint=joint and commits > 1)
    assert found["bytes"] == pytest.approx(3 * read)


def test_blocks_and_a_cache_cost_less_arithmetic(base):
    machine = Machine(measure(type(base), base.config), 4, None)

    def flops(policy):
        made = decode_batch(
            base, base.canvas([[501]] * 2, 16), policy.prepare(base), Noise(0, (0, 1))
        )
        return cost(made, machine)["flops"]

    assert flops(Policy(cache=FreeCache(4))) < flops(Policy(block_length=4)) < flops(Policy())


def test_latency_is_the_wait_for_a_whole_batch():
    alone = generation(seconds=0.5, rows=1)
    together = [generation(seconds=0.5, rows=4) for _ in range(4)]
    assert alone.latency == 0.5
    assert together[0].latency == 2.0
    found = cost([alone, *together], None)
    assert found["latency_p50"] == 2.0
    assert found["latency_p50"] <= found["latency_p90"] <= found["latency_p99"]
    assert found["rows_per_batch"] == pytest.approx(17 / 5)
    assert not {"flops", "bytes"} & set(found)


def test_a_guide_beside_the_base_has_no_arithmetic(base):
    machine = Machine(measure(type(base), base.config), 4, None)
    assert "flops" in cost([generation()], machine)
    assert "flops" not in cost([generation(guide_passes=1)], machine)


# Together


@pytest.fixture(scope="module")
def scored(base, setup, sampler, tmp_path_factory):
    """Three decoders, three tasks, one of them graded and drawn."""
    run_dir = tmp_path_factory.mktemp("runs") / "pairs"
    sampler.save_pretrained(run_dir.parent / "sampler")
    decoders = setup.decoders | {"joint-k4": Policy(4, refine=Trained(run_dir.parent / "sampler"))}
    drawn = replace(setup.word_problems, name="drawn", draw=Draw())
    deep = [*setup.unconditional.metrics, Depth(depth=2)]
    free = replace(setup.unconditional, metrics=deep)
    run(base, decoders, [free, setup.word_problems, drawn], run_dir)
    return score(run_dir, base=base)


def test_a_run_is_scored_again_without_base_judge_or_sampler(scored, monkeypatch):
    """What a GPU was needed for is in the cache: here nothing can be loaded."""

    def refused(*_, **__):
        raise AssertionError("nothing here loads a model")

    monkeypatch.setattr(judge, "_load", refused)
    monkeypatch.setattr("dlmjoint.evaluation.scoring.score.load_any_base", refused)
    monkeypatch.setattr("dlmjoint.evaluation.scoring.score.load_models", refused)
    judge.language_judge.cache_clear()
    judge.feature_judge.cache_clear()
    again = score(Path(scored["provenance"]["settings"]["run_dir"]))
    assert {key: again[key] for key in again if key != "provenance"} == {
        key: scored[key] for key in scored if key != "provenance"
    }


def test_processes_share_what_is_costly_and_compute_nothing_twice(scored, base, tmp_path):
    run_dir = Path(scored["provenance"]["settings"]["run_dir"])
    made = [path.relative_to(run_dir) for path in (run_dir / "cache").iterdir()]
    costly = {path for path in made if not path.name.startswith("features")}
    shutil.copytree(run_dir, tmp_path, ignore=shutil.ignore_patterns("cache"), dirs_exist_ok=True)
    decoders = settings.build({name: part["policy"] for name, part in scored["decoders"].items()})
    found = []
    for rank in range(2):
        before = set(tmp_path.rglob("*.npy"))
        fill_cache(tmp_path, base=base, decoders=decoders, processes=Processes(rank, 2))
        found.append(set(tmp_path.rglob("*.npy")) - before)
    assert {path.relative_to(tmp_path) for share in found for path in share} == costly
    assert abs(len(found[0]) - len(found[1])) <= 1
    assert len(costly) == 9  # NLL, trajectory KL and depth of three decoders


def numbers(value, where=""):
    """Everything that has a value, by its place."""
    if isinstance(value, dict):
        if "value" in value:
            yield where, value
        for key, each in value.items():
            yield from numbers(each, f"{where}/{key}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from numbers(each, f"{where}/{number}")


def test_every_number_that_is_measured_has_its_interval_and_its_n(scored):
    for part in scored["decoders"].values():
        for task in part["tasks"].values():
            for one in task.values():
                assert set(one) == {"value", "low", "high", "n"}
    found = dict(numbers({key: scored[key] for key in ("decoders", "ceiling", "pairs", "aup")}))
    assert len(found) > 50
    for where, one in found.items():
        assert one["low"] <= one["value"] <= one["high"], where
        assert one["n"] in (5, 12), where
    json.dumps(scored, allow_nan=False)


def test_every_decoder_is_compared_with_the_first_on_every_metric_of_examples(scored):
    pairs = scored["pairs"]
    assert set(pairs) == {"unconditional", "word_problems", "drawn"}
    assert set(pairs["word_problems"]) == {"accuracy", "answered"}
    assert "mauve" not in pairs["unconditional"]
    assert {"nll", "trajectory_kl", "agreement_item", "kl@2"} < set(pairs["unconditional"])
    for metrics in pairs.values():
        for metric, comparisons in metrics.items():
            assert [(one["a"], one["b"]) for one in comparisons] == [
                ("exact", "marginals-k4"),
                ("exact", "joint-k4"),
            ]
            flagged = metric in ("accuracy", "answered") or metric.startswith("agreement_")
            expected = "mcnemar" if flagged else "bootstrap"
            assert {one["test"] for one in comparisons} == {expected}
            assert all(0 < one["p_value"] <= 1 for one in comparisons)


def test_a_difference_is_that_of_the_two_scores(scored):
    for task, metrics in scored["pairs"].items():
        for metric, comparisons in metrics.items():
            for one in comparisons:
                a, b = (scored["decoders"][one[k]]["tasks"][task][metric]["value"] for k in "ab")
                assert one["difference"]["value"] == pytest.approx(b - a, abs=1e-12)


def test_aup_is_given_for_the_tasks_with_accuracy(scored):
    assert set(scored["aup"]) == {"word_problems", "drawn"}
    assert scored["aup"]["drawn"]["joint"]["decoders"] == ["exact", "joint-k4"]


def test_a_limit_takes_the_first_examples_of_every_task(setup):
    assert [task.n for task in limited(setup.tasks, 7)] == [7, 5]
    assert limited(setup.tasks, None) == setup.tasks
    with pytest.raises(ConfigError, match="limit is 0"):
        limited(setup.tasks, 0)
