"""The schedule of a training run."""

from pathlib import Path

import pytest

from dlmjoint.pretrain.train import WARM_UP, History, Schedule


def factors(steps: int, cooldown: int) -> list[float]:
    """The rate of every update, as a share of the peak."""
    schedule = Schedule(steps, 1, 1.0, cooldown)
    return [schedule.factor(step) for step in range(steps)]


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    found = factors(1000, 300)
    assert found[0] == 1 / WARM_UP
    assert found[WARM_UP - 1 : 701] == [1.0] * (701 - WARM_UP + 1)
    assert found[850] == 0.5
    assert found[-1] == pytest.approx(1 / 300)


def test_without_a_cooldown_the_rate_stays() -> None:
    assert factors(500, 0)[WARM_UP:] == [1.0] * 400


def test_a_cooldown_of_the_whole_run_is_a_linear_schedule() -> None:
    assert factors(400, 400)[WARM_UP:] == [(400 - step) / 400 for step in range(WARM_UP, 400)]


def test_a_folder_without_a_history_has_seen_nothing(tmp_path: Path) -> None:
    assert History.of(tmp_path).examples == 0
    assert History.of(None).examples == 0
