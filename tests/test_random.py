"""Noise belongs to examples."""

import math

import torch
from scipy.stats import kstest

from dlmjoint.random import Noise, _uniform, derive_seed


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


def test_the_noise_is_splitmix64() -> None:
    """The reference implementation's first outputs for seed 1234567 (prng.di.unimi.it)."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    drawn = _uniform(torch.tensor([1234567]), torch.arange(1, 4))
    for value, output in zip(drawn.tolist(), expected, strict=True):
        assert value == ((output >> 11) + 0.5) * 2.0**-53


def test_uniform_numbers_are_uniform_over_cells_and_inside_the_interval() -> None:
    cells = torch.zeros(20_000, dtype=torch.long), torch.arange(20_000)
    drawn = Noise(3, (5,)).uniform(*cells)
    assert 0 < drawn.min() < drawn.max() < 1
    assert kstest(drawn.numpy(), "uniform").pvalue > 1e-3


def test_noise_of_neighbouring_cells_is_uncorrelated() -> None:
    rows, columns = torch.zeros(400, dtype=torch.long), torch.arange(400)
    drawn = Noise(0, (0,)).gumbel(rows, columns, 50)
    correlation = torch.corrcoef(torch.stack([drawn[:-1].flatten(), drawn[1:].flatten()]))[0, 1]
    assert abs(correlation) < 0.03
