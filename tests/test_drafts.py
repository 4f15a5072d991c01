"""How many drafts pay, by arithmetic."""

from dataclasses import replace
from pathlib import Path

import pytest

import dlmjoint
from dlmjoint.costs.arithmetic import measure
from dlmjoint.costs.drafts import BestDrafts, Device, Round, expected_tokens
from dlmjoint.costs.rounds import table
from dlmjoint.decoding.guides.verified import Verified
from dlmjoint.decoding.refine import Marginals
from dlmjoint.decoding.schedule import Steady
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.running import generations
from dlmjoint.models.dream import Dream
from dlmjoint.models.toy import TableModel
from tests.evaluation.test_metrics import generation

BOUND_BY_LAUNCHES = Device(seconds_per_launch=1.0)
BOUND_BY_ARITHMETIC = Device(flops_per_second=1.0, seconds_per_launch=0.0)


def _best(device: Device, base: Dream, *shares: float) -> Steady:
    return BestDrafts(shares, cap=8, device=device).prepare(base, Marginals())


def test_tokens_expected_of_a_round_follow_from_what_is_accepted() -> None:
    assert expected_tokens((0.5,), 1) == 1
    assert expected_tokens((0.5,), 3) == 1 + 0.5 + 0.25
    assert expected_tokens((0.5, 1.0), 4) == 1 + 0.5 + 0.5 + 0.5
    assert expected_tokens((0.0,), 9) == 1


def test_where_a_forward_waits_for_launches_as_many_drafts_as_allowed_pay(
    random_dream: Dream,
) -> None:
    assert _best(BOUND_BY_LAUNCHES, random_dream, 0.5) == Steady(8)


def test_where_a_forward_is_arithmetic_refused_drafts_do_not_pay(random_dream: Dream) -> None:
    assert _best(BOUND_BY_ARITHMETIC, random_dream, 0.9) == Steady(1)


@pytest.mark.parametrize("device", [BOUND_BY_LAUNCHES, BOUND_BY_ARITHMETIC, Device()])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("rows", [1, 16, 256])
def test_the_chosen_number_is_never_slower_than_token_by_token(
    random_dream: Dream, device: Device, share: float, rows: int
) -> None:
    chosen = BestDrafts((share,), rows=rows, device=device).prepare(random_dream, Marginals())
    size = measure(Dream, random_dream.config)
    made = Round(size, device, rows, 256, 256)
    tokens = expected_tokens((share,), chosen.count)
    assert made.speed_up(tokens, chosen.count, passes=0) >= 1
    assert made.speed_up(1, 1, 0) == 1


def test_it_is_a_schedule_of_a_policy(random_dream: Dream) -> None:
    schedule = BestDrafts((0.9,), cap=3, device=BOUND_BY_LAUNCHES)
    policy = dlmjoint.Policy(schedule, guide=Verified())
    out = dlmjoint.generate(random_dream, 3, policy, 8)
    fixed = dlmjoint.generate(random_dream, 3, replace(policy, commits_per_forward=3), 8)
    assert (out.sequences, out.base_forwards) == (fixed.sequences, fixed.base_forwards)


def test_what_cannot_be_reckoned_is_refused() -> None:
    with pytest.raises(ConfigError, match="acceptance is"):
        BestDrafts(())
    with pytest.raises(ConfigError, match="acceptance is"):
        BestDrafts((1.2,))
    with pytest.raises(ConfigError, match="rates must be above 0"):
        Device(bytes_per_second=0)
    with pytest.raises(ConfigError, match="are not known"):
        BestDrafts((0.5,)).prepare(TableModel.random(), Marginals())


def test_the_table_of_rounds_tells_what_a_round_gives_and_costs(
    tmp_path: Path, random_dream: Dream
) -> None:
    for name, (forwards, canvases) in {"exact": (8, 8), "verified": (4, 16)}.items():
        counts = {"base_forwards": forwards, "canvases": canvases, "columns": canvases * 12}
        texts = {"prompt": [1] * 4, "tokens": [2] * 8, "writers": ["base"] * 8}
        path = tmp_path / "generations" / name / "texts.jsonl"
        generations.append(path, [generation(**counts | texts) for _ in range(2)])
    size = measure(Dream, random_dream.config)
    launches, arithmetic = (
        [line.split(" | ") for line in table(tmp_path, "texts", size, device)][2:]
        for device in (BOUND_BY_LAUNCHES, BOUND_BY_ARITHMETIC)
    )
    assert launches[0][1:6] == ["8.00", "1.00", "1.00", "12.0", "0.00"]
    assert launches[1][1:6] == ["4.00", "2.00", "4.00", "12.0", "0.00"]
    assert {cell.strip(" |") for cell in launches[1][6:]} == {"2.00"}
    assert {cell.strip(" |") for cell in arithmetic[1][6:]} == {"0.50"}
    with pytest.raises(DataError, match="no generations of others"):
        list(table(tmp_path, "others", size, Device()))
