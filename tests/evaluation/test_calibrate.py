"""Thresholds from recorded trajectories."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dlmjoint
from dlmjoint.cli import main
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early import Coherent
from dlmjoint.decoding.early_rules.prophet import Columns, Prophet, Staged
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Marginals
from dlmjoint.decoding.schedules.budget import Budget
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.calibrate import (
    Replay,
    acceptance,
    answer_of,
    choose,
    exit_steps,
    price_per_nat,
    read_recorded,
    replay,
)
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.tasks.word_problems import WordProblems
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.sampler_config import JointSamplerConfig

GREEDY = Policy(draw=Draw(temperature=0.0))


@pytest.fixture(scope="module")
def recorded(base):
    return dlmjoint.generate(
        base, [[501, 5, 6], [501, 7], [501], [501, 9]], GREEDY, 12
    ).trajectories


@pytest.mark.parametrize("high", [0.02, 0.3, 100.0])
def test_a_replay_foretells_where_decoding_stops_and_what_it_writes(base, recorded, high) -> None:
    prophet = Prophet(Staged(high, high / 2, high / 4), Columns(6, 4))
    found = replay(base, recorded, prophet, GREEDY.prepare(base), answer_of(base, None))
    exits = exit_steps(found, prophet.threshold)
    stopped = dlmjoint.generate(
        base, [t.prompt.tolist() for t in recorded], replace(GREEDY, early=prophet), 12
    )
    assert stopped.base_forwards == np.minimum(exits + 1, 12).sum()
    for row, (full, early) in enumerate(zip(recorded, stopped.trajectories, strict=True)):
        changed = base.decode(full.response.tolist()) != base.decode(early.response.tolist())
        assert changed == (exits[row] < 12 and found.flips[row, exits[row]])


def test_a_replay_fills_by_the_sampler_where_the_rule_does(base, recorded) -> None:
    sampler = JointSampler.from_base(base, gain=1.0).eval()
    policy = replace(GREEDY, refine=Joint(sampler)).prepare(base)
    once, coherent = (
        replay(base, recorded, rule, policy, answer_of(base, None))
        for rule in (Prophet(), Prophet(fill=Coherent()))
    )
    assert np.array_equal(once.gaps, coherent.gaps)
    assert not np.array_equal(once.flips, coherent.flips)


def _synthetic(n: int = 200, steps: int = 30) -> Replay:
    """Rows whose answer settles at a known step, where their gap jumps from 1 to 9."""
    settled = np.random.default_rng(0).integers(5, 25, n)
    done = np.arange(steps)[None] >= settled[:, None]
    return Replay(np.where(done, 9.0, 1.0), ~done)


def test_the_chosen_thresholds_stop_when_answers_settle_and_not_before() -> None:
    replayed = _synthetic()
    found = choose(replayed, 0.0)
    assert found.flip_rate.value == 0
    settled = replayed.flips.sum(1)
    best = 1 - (settled[1::2] + 1).mean() / 30
    assert found.forwards_saved == pytest.approx(best)


def test_a_larger_flip_rate_saves_more_and_is_kept_where_it_was_chosen() -> None:
    noise = np.random.default_rng(1).normal(0, 3, (400, 30))
    clean = _synthetic(400)
    replayed = Replay(clean.gaps + noise, clean.flips)
    saved = []
    for rate in (0.0, 0.05, 0.3):
        found = choose(replayed, rate)
        half = Replay(replayed.gaps[::2], replayed.flips[::2])
        exits = exit_steps(half, found.threshold)
        rows = np.flatnonzero(exits < 30)
        assert half.flips[rows, exits[rows]].sum() <= rate * len(exits)
        saved.append(found.forwards_saved)
    assert saved[0] < saved[1] < saved[2]


def test_gaps_that_tell_nothing_leave_decoding_alone() -> None:
    replayed = Replay(np.ones((40, 30)), np.ones((40, 30), dtype=bool))
    found = choose(replayed, 0.01)
    assert found.forwards_saved == 0
    assert found.threshold == Staged(np.inf, np.inf, np.inf)


def test_a_rate_that_is_no_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"flip_rate is 1\.5"):
        choose(_synthetic(), 1.5)


def test_an_exact_decoder_has_a_price_of_nothing_and_marginals_do_not(base, recorded) -> None:
    class Again(Joint):
        passes = 1

        def __call__(self, base, prediction, canvas):
            return base.predict(canvas)

    policy = Policy().prepare(base)
    exact = replace(policy, refine=Again(JointSampler.from_base(base)))
    assert price_per_nat(base, exact, recorded, 2) == pytest.approx([0, 0], abs=1e-9)
    prices = price_per_nat(base, policy, recorded, 3)
    assert all(price > 0 for price in prices)
    assert Budget(0.1, rate=tuple(prices)).rate == tuple(prices)


def test_trajectories_are_read_from_a_folder_or_from_generations(base, tmp_path, capsys) -> None:
    task = WordProblems(n=6, max_new_tokens=8, stream=2)
    run(base, {"exact": Policy()}, [task], tmp_path / "run")
    lines = tmp_path / "run/generations/exact/word_problems.jsonl"
    found = read_recorded(lines, 4)
    assert [t.example_id for t in found] == [0, 1, 2, 3]
    assert torch.equal(found[0].state(8, base.mask_id), found[0].response)
    with pytest.raises(DataError, match="neither a folder"):
        read_recorded(tmp_path / "nothing", 4)
    main(
        f"calibrate --base {base.name} --trajectories {lines} --depth 2 --flip_rate 0.5 "
        f"--output {tmp_path / 'found.json'}".split()
    )
    shown = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "found.json").read_text())
    assert shown["budget"] == written["budget"]
    assert len(shown["budget"]["rate"]) == 2
    assert set(shown["prophet"]["threshold"]) == {"high", "mid", "low"}


def test_prices_are_written_into_a_samplers_config_whole_or_not_at_all(
    base, tmp_path, monkeypatch
) -> None:
    run(base, {"exact": Policy()}, [WordProblems(n=4, max_new_tokens=8)], tmp_path / "run")
    sampler = tmp_path / "sampler"
    JointSampler.from_base(base).save_pretrained(sampler)
    lines = tmp_path / "run/generations/exact/word_problems.jsonl"
    command = f"calibrate --base {base.name} --trajectories {lines} --depth 2 --into {sampler}"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def disk_full(self, path, *_, **__):
        Path(path).write_text("half")
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(JointSamplerConfig, "to_json_file", disk_full)
        with pytest.raises(OSError, match="no space left"):
            main(command.split())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    main(command.split())
    prices = JointSamplerConfig.from_pretrained(sampler).price_per_nat
    assert prices is not None
    assert len(prices) == 2
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert changed == {sampler / "config.json"}


def test_a_task_without_answers_cannot_say_what_a_flip_is(base, recorded, setup) -> None:
    with pytest.raises(ConfigError, match="has no answers"):
        answer_of(base, setup.unconditional)(recorded[0])


def test_a_sampler_that_changes_nothing_has_the_same_drafts_accepted_as_the_marginals(
    random_dream: Dream,
) -> None:
    drawn = dlmjoint.generate(random_dream, 12, max_new_tokens=8).trajectories
    still = Joint(JointSampler.from_base(random_dream, gain=0.0).eval())
    marginals, joint = (
        acceptance(random_dream, Policy(refine=refine).prepare(random_dream), drawn, 2, "drafted")
        for refine in (Marginals(), still)
    )
    assert marginals == joint
    assert all(0 < share < 1 for share in marginals)
