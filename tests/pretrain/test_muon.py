"""Muon, orthogonalising in float32 on a CPU."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dlmjoint.pretrain.muon import Muon, orthogonal

SHAPES = [(24, 12), (12, 24), (16, 16)]
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Dtypes(TorchDispatchMode):
    """Notes the dtypes of all that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen |= {leaf.dtype for leaf in tree_leaves(out) if isinstance(leaf, Tensor)}
        return out


def _weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator)) for s in SHAPES]


def _grads(weights: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)


def test_a_step_on_a_cpu_computes_nothing_in_bfloat16() -> None:
    weights = _weights()
    optimizer = Muon(weights)
    _grads(weights, 1)
    with Dtypes() as dtypes:
        optimizer.step()
    assert dtypes.seen == {torch.float32}


@pytest.mark.parametrize("rule", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_ten_steps_are_torchs_up_to_its_bfloat16(nesterov: bool, rule: str) -> None:
    ours, theirs, start = _weights(), _weights(), _weights()
    settings = {"lr": 0.01, "weight_decay": 0.1, "nesterov": nesterov, "adjust_lr_fn": rule}
    pair = [(Muon(ours, **settings), ours), (torch.optim.Muon(theirs, **settings), theirs)]
    for seed in range(10):
        for optimizer, weights in pair:
            _grads(weights, seed)
            optimizer.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        assert not torch.equal(one, other)
        assert (one - other).norm() < 0.02 * (other - before).norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_go_through_the_polynomial_and_singular_vectors_stay(
    shape: tuple[int, int],
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        powers = torch.stack([values, values**3, values**5])
        values = torch.tensor(COEFFICIENTS, dtype=torch.float64) @ powers
    found = orthogonal(matrix, COEFFICIENTS, 5, 1e-7)
    torch.testing.assert_close(found, left @ torch.diag(values) @ right)
    assert found.dtype == torch.float64


def test_a_weight_without_gradient_stays_and_a_closures_loss_is_returned() -> None:
    weights = _weights()
    optimizer = Muon(weights)
    before = [weight.detach().clone() for weight in weights]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weights[0] ** 2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == (before[0] ** 2).sum()
    assert not torch.equal(weights[0], before[0])
    assert all(torch.equal(w, b) for w, b in zip(weights[1:], before[1:], strict=True))


def test_states_are_torchs_own() -> None:
    ours, theirs = _weights(), _weights()
    first, second = Muon(ours), torch.optim.Muon(theirs)
    for optimizer, weights in ((first, ours), (second, theirs)):
        _grads(weights, 0)
        optimizer.step()
    again = Muon(_weights())
    again.load_state_dict(second.state_dict())
    for one, other in zip(
        again.state_dict()["state"].values(), first.state_dict()["state"].values(), strict=True
    ):
        assert torch.equal(one["momentum_buffer"], other["momentum_buffer"])
