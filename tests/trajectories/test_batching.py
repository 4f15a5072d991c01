"""Batches: as many rows as fit, of about the same length; sizes change nothing in the content."""

import json
from pathlib import Path

import pytest
import torch

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.models.dream import Dream
from dlmjoint.models.llada import Llada
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from dlmjoint.trajectories import batching
from dlmjoint.trajectories.batching import (
    Batching,
    columns_that_fit,
    drawing_bytes,
    forward_bytes,
)
from dlmjoint.trajectories.generate import generate
from dlmjoint.trajectories.prompts import PromptFile
from dlmjoint.trajectories.store import TrajectoryStore
from dlmjoint.types import Canvas, Commit, Prediction
from tests.conftest import GOLDEN
from tests.live_bytes import most_live_bytes

BASE = str(GOLDEN / "dream")
LENGTHS = (1, 30, 2, 29, 3, 28, 4, 27)
NEW = 5


def _draw(folder: Path, **settings) -> TrajectoryStore:
    """Eight prompts of very different lengths, in one shard."""
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": "a" * n}) + "\n" for n in LENGTHS))
    return generate(
        BASE,
        folder / "out",
        PromptFile(path),
        max_new_tokens=NEW,
        shard_size=8,
        device="cpu",
        **settings,
    )


def _content(store: TrajectoryStore) -> list[tuple]:
    return [(t.example_id, t.response.tolist(), t.order.tolist()) for t in store.trajectories()]


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the canvases a base is asked about, each once in a row."""
    seen: list[tuple[int, ...]] = []
    predict = TransformerBase.predict

    def seeing(self: TransformerBase, canvas: Canvas, *rest, **settings) -> Prediction:
        if seen[-1:] != [tuple(canvas.tokens.shape)]:
            seen.append(tuple(canvas.tokens.shape))
        return predict(self, canvas, *rest, **settings)

    monkeypatch.setattr(TransformerBase, "predict", seeing)
    return seen


def test_rows_of_about_the_same_length_are_decoded_together(
    tmp_path: Path, golden_dream: TransformerBase, shapes: list[tuple[int, ...]]
) -> None:
    _draw(tmp_path, batch_size=4)
    ids = [len(golden_dream.encode("a" * n)) for n in LENGTHS]
    long, short = sorted(ids, reverse=True)[0], sorted(ids, reverse=True)[4]
    assert shapes == [(4, long + NEW), (4, short + NEW)]
    assert short < long / 2


def test_batches_are_as_equal_as_their_limit_allows() -> None:
    sizes, left = [], 100
    while left:
        sizes.append(Batching(most_rows=48).rows(left, width=10))
        left -= sizes[-1]
    assert sizes == [34, 33, 33]


def test_a_limit_in_columns_gives_long_rows_small_batches() -> None:
    limit = Batching(most_columns=1000)
    assert [limit.rows(1000, width) for width in (10, 100, 999)] == [100, 10, 1]


def test_a_batch_the_device_has_no_memory_for_is_halved_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: list[tuple[int, ...]]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected = _content(_draw(tmp_path / "a", batch_size=8))
    shapes.clear()
    predict = TransformerBase.predict

    def small(self: TransformerBase, canvas: Canvas, *rest, **settings) -> Prediction:
        if len(canvas.tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(self, canvas, *rest, **settings)

    monkeypatch.setattr(TransformerBase, "predict", small)
    assert _content(_draw(tmp_path / "b", batch_size=8)) == expected
    assert max(rows for rows, _ in shapes) == 2


def test_a_row_that_does_not_fit_alone_is_refused_in_words() -> None:
    limit = Batching()
    limit.halve(2, 50)
    with pytest.raises(ConfigError, match="one row of 50 columns"):
        limit.halve(limit.rows(2, 50), 50)


def test_auto_takes_what_memory_allows_and_no_more_than_helps(
    golden_dream: TransformerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def most(free: int, width: int = 20) -> int:
        monkeypatch.setattr(batching, "free_bytes", lambda device: free)
        return Batching.of(golden_dream, "auto", width).most_columns

    plenty = 1 << 40
    assert most(plenty) == batching.ENOUGH["cpu"]
    assert most(plenty, width=5000) == 5000  # a single row may be longer than what helps
    scarce = next(free for free in range(1 << 28, 1 << 31, 1 << 18) if _fits(golden_dream, free))
    assert 20 <= most(scarce) < batching.ENOUGH["cpu"]
    with pytest.raises(ConfigError, match="a canvas of 20 columns does not fit"):
        most(1 << 28)


def _fits(base: TransformerBase, free: int) -> bool:
    return columns_that_fit(base, free) >= 20


@pytest.mark.parametrize("family", [Dream, Llada])
def test_a_forward_takes_the_memory_that_arithmetic_says(family: type[TransformerBase]) -> None:
    base = family.random()
    assert isinstance(base, TransformerBase)
    canvas = base.canvas([[1] * (1 + row % 3) for row in range(8)], 40)
    with torch.inference_mode():
        measured = most_live_bytes(lambda: base.predict(canvas))
    config = base.config
    said = forward_bytes(config.hidden_size, config.intermediate_size, canvas.tokens.numel(), 4)
    assert 0.9 * said < measured <= said


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_ranking_and_drawing_take_no_more_memory_than_arithmetic_says(
    golden_dream: TransformerBase, top_p: float
) -> None:
    canvas = golden_dream.canvas([[1]] * 8, 40)
    policy = Policy(draw=Draw(top_p=top_p)).prepare(golden_dream)
    hidden = torch.randn(*canvas.tokens.shape, golden_dream.hidden_size)
    prediction = Prediction(hidden, torch.ones_like(canvas.attends))
    noise = Noise(0, tuple(range(8))).over(40, canvas.tokens.device)
    turn = Turn(
        golden_dream, policy.order, policy.draw, policy.refine, None, noise, 0, canvas, prediction
    )

    def written() -> Commit:
        return turn.commit(turn.first(turn.cells(turn.open(), 40), 40))

    with torch.inference_mode():
        written()  # constants of the vocabulary are made once
        measured = most_live_bytes(written)
    said = drawing_bytes(golden_dream.vocab_size, 8 * 40)
    checks = 8 * golden_dream.vocab_size * 8 * 40  # shapes are checked here: arguments live longer
    assert 0.75 * said < measured <= said + checks
