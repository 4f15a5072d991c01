"""Noise belongs to examples."""

import math

import torch
from scipy.stats import kstest

from dlmjoint.random import Noise, derive_seed


def _cells(*cells: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([row for row, _ in cells]), torch.tensor([column for _, column in cells])


def test_noise_depends_on_the_example_and_not_on_its_row() -> None:
    first = Noise(1, (7, 8)).gumbel(*_cells((1, 3)), 5)
    second = Noise(1, (8,)).gumbel(*_cells((0, 3)), 5)
    assert torch.equal(first, second)


def test_seeds_examples_columns_and_purposes_have_different_noise() -> None:
    noise = Noise(1, (7, 8))
    drawn = noise.gumbel(*_cells((0, 0), (1, 0), (0, 1)), 5)
    other = Noise(2, (7, 8)).gumbel(*_cells((0, 0)), 5)
    rows = {tuple(row.tolist()) for row in torch.cat([drawn, other])}
    assert len(rows) == 4
    assert derive_seed(1, 2, "token") != derive_seed(1, 2, "order")


def test_gumbel_noise_is_gumbel_distributed() -> None:
    drawn = Noise(0, (0,)).gumbel(*_cells((0, 0)), 20_000)[0]
    assert kstest(drawn.numpy(), "gumbel_r").pvalue > 1e-3
    assert math.isclose(float(drawn.mean()), 0.5772, abs_tol=0.03)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert derive_seed(0, 1, "token") == 1697069898028579884
