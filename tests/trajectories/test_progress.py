"""Progress: what is told is counted in the folder."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dlmjoint.trajectories.claims import Claims
from dlmjoint.trajectories.generate import generate
from dlmjoint.trajectories.progress import IN_THE_LOG, Progress
from dlmjoint.trajectories.prompts import Unconditional
from dlmjoint.trajectories.store import TrajectoryStore
from dlmjoint.types import Canvas, Commit, Step
from tests.conftest import GOLDEN


class Clock:
    """A clock that stands still until it is told to go."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    """Five shards of four examples of ten tokens, all there."""
    return generate(
        str(GOLDEN / "dream"), tmp_path, Unconditional(20), 10, shard_size=4, device="cpu"
    )


def _progress(store: TrajectoryStore, terminal: bool = False) -> tuple[Progress, Clock]:
    clock = Clock()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    progress = Progress(console, clock)
    progress.claims = Claims(store, 60)
    progress.speaks = True
    return progress, clock


def _steps(rows: int, count: int) -> Iterator[Step]:
    tokens = torch.zeros(rows, 3, dtype=torch.long)
    canvas = Canvas(tokens, tokens == 0, slice(1, 3), 9)
    each = torch.arange(rows)
    commit = Commit.of_rows(each % 3, each)
    for _ in range(count):
        yield Step(canvas, (commit,), each, each, each, each, each)


def test_speed_and_time_left_count_all_processes_shards_and_this_ones_tokens(
    store: TrajectoryStore,
) -> None:
    away = [store.path(shard) for shard in (1, 2, 3, 4)]
    kept = [path.read_bytes() for path in away]
    for path in away:
        path.unlink()
    progress, clock = _progress(store)
    progress.begin()
    clock.now = 10.0
    assert progress.told() == "1 of 5 shards, 0 tokens/s, 0 being drawn"
    away[0].write_bytes(kept[0])  # another process's: 40 tokens
    assert len(list(progress.follow(_steps(rows=4, count=5)))) == 5  # 20 tokens
    assert progress.told() == (
        "2 of 5 shards, 6 tokens/s, 0 being drawn, 50.0%, about 0:00:17 left"
    )
    away[1].write_bytes(kept[1])
    progress.written()
    clock.now = 20.0
    assert progress.told() == (
        "3 of 5 shards, 4 tokens/s, 0 being drawn, 60.0%, about 0:00:20 left"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_a_report_looks_at_the_folder_once(
    store: TrajectoryStore, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.path(0).unlink()
    progress, clock = _progress(store, terminal)
    progress.begin()
    looks = []
    monkeypatch.setattr(store, "names", lambda: looks.append(1) or {"shard-00001.parquet"})
    clock.now = 100.0
    progress.tell()
    progress._stop()
    assert len(looks) == 1


def test_tokens_of_a_batch_that_failed_are_not_counted(store: TrajectoryStore) -> None:
    def failing() -> Iterator[Step]:
        yield from _steps(4, 3)
        raise torch.OutOfMemoryError

    progress, _ = _progress(store)
    progress.begin()
    list(progress.follow(_steps(2, 2)))
    with pytest.raises(torch.OutOfMemoryError):
        list(progress.follow(failing()))
    assert progress.drawn == 4


def test_without_a_terminal_a_line_is_logged_once_a_minute(
    store: TrajectoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    progress, clock = _progress(store)
    progress.begin()
    for second in range(0, 200, 5):
        clock.now = float(second)
        progress.tell()
    assert IN_THE_LOG == 60
    assert len(caplog.messages) == 3
    assert all("5 of 5 shards" in message for message in caplog.messages)


def test_on_a_terminal_there_is_a_bar(store: TrajectoryStore) -> None:
    progress, clock = _progress(store, terminal=True)
    store.path(0).unlink()
    progress.begin()
    clock.now = 2.0
    list(progress.follow(_steps(4, 2)))
    progress.end()
    assert isinstance(progress.console.file, io.StringIO)
    shown = progress.console.file.getvalue()
    assert "82%" in shown
    assert "2 tokens/s" in shown
