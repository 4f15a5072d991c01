"""The contract of every base. A new family is tested because it exists; nothing lists it here."""

import importlib
import inspect
import pkgutil
from dataclasses import replace

import pytest
import torch

import dlmjoint.models
from dlmjoint.models.base import Base
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.models.transformer import TransformerBase


def _bases() -> list[type[Base]]:
    found = set()
    for module in pkgutil.iter_modules(dlmjoint.models.__path__):
        members = vars(importlib.import_module(f"dlmjoint.models.{module.name}")).values()
        for member in members:
            if (
                inspect.isclass(member)
                and issubclass(member, Base)
                and not inspect.isabstract(member)
            ):
                found.add(member)
    return sorted(found, key=lambda kind: kind.__name__)


def _transformers() -> list[type[Base]]:
    return [kind for kind in _bases() if issubclass(kind, TransformerBase)]


every_base = pytest.mark.parametrize("kind", _bases())
every_transformer = pytest.mark.parametrize("kind", _transformers())


def _partly_written(base: Base, prompts: list[list[int]], seed: int = 0):
    canvas = base.canvas(prompts, 3)
    canvas.tokens[:, canvas.response.start + 1] = 2
    return canvas


def _response(base: Base, canvas) -> torch.Tensor:
    hidden = base.predict(canvas).hidden[:, canvas.response]
    return base.unembed(hidden).log_softmax(-1)


@every_base
@torch.no_grad()
def test_a_row_alone_is_predicted_as_in_a_left_padded_batch(kind: type[Base]) -> None:
    base = kind.random()
    prompts = [[1, 2, 0, 1, 2, 2, 1], [1], [1, 0, 2]]
    batch = _response(base, _partly_written(base, prompts))
    for row, prompt in enumerate(prompts):
        alone = _response(base, _partly_written(base, [prompt]))
        torch.testing.assert_close(batch[row : row + 1], alone, atol=2e-5, rtol=1e-4)


@every_transformer
@torch.no_grad()
def test_left_padding_changes_no_hidden_state_of_a_real_column(kind: type[Base]) -> None:
    base = kind.random()
    alone = base.canvas([[1, 2, 3, 4]], 5)
    padded = base.canvas([[1, 2, 3, 4], [1] * 9], 5)
    expected = base.predict(alone).hidden[0]
    found = base.predict(padded).hidden[0, 5:]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def _columns(canvas, window: tuple[int, int]) -> torch.Tensor:
    cells = torch.zeros_like(canvas.attends)
    cells[:, slice(*window)] = True
    return cells


@every_transformer
@torch.no_grad()
@pytest.mark.parametrize("window", [(0, 12), (1, 12), (4, 12), (4, 7), (8, 9), (11, 12)])
def test_a_window_over_exact_memory_predicts_what_the_full_forward_does(
    kind: type[Base], window: tuple[int, int]
) -> None:
    base = kind.random()
    canvas = base.canvas([[1, 2, 3, 4], [1, 2]], 8)
    memory = CanvasMemory()
    full = base.predict(canvas, None, memory).hidden.clone()
    again = base.predict(canvas, _columns(canvas, window), memory).hidden
    torch.testing.assert_close(again, full, atol=2e-6, rtol=1e-5)


@every_transformer
@torch.no_grad()
def test_scattered_columns_over_exact_memory_predict_what_the_full_forward_does(
    kind: type[Base],
) -> None:
    base = kind.random()
    canvas = base.canvas([[1, 2, 3, 4], [1, 2]], 8)
    memory = CanvasMemory()
    full = base.predict(canvas, None, memory).hidden.clone()
    cells = _columns(canvas, (5, 7)) | _columns(canvas, (10, 11))
    again = base.predict(canvas, cells, memory).hidden
    torch.testing.assert_close(again, full, atol=2e-6, rtol=1e-5)


@every_transformer
@torch.no_grad()
def test_a_window_sees_what_changed_inside_it_and_misses_what_changed_outside(
    kind: type[Base],
) -> None:
    base = kind.random()
    canvas = base.canvas([[1, 2, 3, 4]], 8)
    memory = CanvasMemory()
    base.predict(canvas, None, memory)
    inside = replace(canvas, tokens=canvas.tokens.clone())
    inside.tokens[0, 8] = 5
    exact = base.predict(inside).hidden
    seen = base.predict(inside, None, memory).hidden
    torch.testing.assert_close(seen, exact, atol=2e-6, rtol=1e-5)
    outside = replace(inside, tokens=inside.tokens.clone())
    outside.tokens[0, 2] = 7
    stale = base.predict(outside, _columns(outside, (6, 12)), memory).hidden
    assert not torch.allclose(stale[:, 6:], base.predict(outside).hidden[:, 6:], atol=1e-3)


@every_transformer
@torch.no_grad()
def test_rows_that_renew_different_cells_in_one_forward_are_as_if_alone(kind: type[Base]) -> None:
    base = kind.random()
    prompts, starts = [[1, 2, 3, 4], [1, 2]], [6, 9]

    def forward(rows: list[int]) -> torch.Tensor:
        canvas, memory = base.canvas([prompts[r] for r in rows], 8), CanvasMemory()
        base.predict(canvas, None, memory)
        shift = canvas.tokens.shape[1] - 12
        canvas.tokens[:, 6 + shift] = 5  # a change that only the first row is to see in its keys
        renew = torch.cat([_columns(canvas, (starts[r] + shift, 12))[:1] for r in rows])
        return base.predict(canvas, renew, memory).hidden

    together = forward([0, 1])
    for row in (0, 1):
        alone = forward([row])[0]
        torch.testing.assert_close(together[row, -len(alone) :], alone, atol=2e-5, rtol=1e-4)


@every_transformer
def test_a_window_without_a_memory_is_refused(kind: type[Base]) -> None:
    base = kind.random()
    canvas = base.canvas([[1]], 4)
    with pytest.raises(ValueError, match="needs a memory"):
        base.predict(canvas, _columns(canvas, (2, 5)))


@every_base
@torch.no_grad()
def test_logits_are_linear_in_hidden_states(kind: type[Base]) -> None:
    base = kind.random()
    one, two = base.predict(base.canvas([[1, 2], [2, 1]], 3)).hidden
    mixed = base.unembed(3 * one - 2 * two)
    expected = 3 * base.unembed(one) - 2 * base.unembed(two)
    torch.testing.assert_close(mixed, expected, atol=1e-4, rtol=1e-4)


@every_base
def test_the_mask_is_a_forbidden_id(kind: type[Base]) -> None:
    base = kind.random()
    assert base.mask_id in base.forbidden_ids


@every_base
def test_the_fingerprint_tells_weights_apart(kind: type[Base]) -> None:
    assert kind.random(0).fingerprint == kind.random(0).fingerprint
    assert kind.random(0).fingerprint != kind.random(1).fingerprint


@every_base
def test_a_prompt_longer_than_the_limit_is_refused_with_both_numbers(kind: type[Base]) -> None:
    base = kind.random()
    with pytest.raises(ValueError, match=f"{base.max_length} columns"):
        base.canvas([[1] * base.max_length], 3)
