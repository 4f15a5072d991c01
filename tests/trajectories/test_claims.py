"""Processes that know nothing of each other share a folder's shards, and may be killed at any time."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from dlmjoint.errors import ConfigError
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.trajectories.claims import Claim, Claims
from dlmjoint.trajectories.generate import generate
from dlmjoint.trajectories.prompts import Unconditional
from dlmjoint.trajectories.store import TrajectoryStore
from tests.conftest import GOLDEN
from tests.distill.processes import CONTEXT, PATIENCE

BASE = str(GOLDEN / "dream")
SHARDS = 6


def _draw(
    output: Path, stops_at: int | None = None, interrupt: object = signal.default_int_handler
) -> TrajectoryStore:
    """Draw six shards; a process that `stops_at` a forward sleeps there until it is ended. A shell
    may have started the tests with SIGINT ignored: what becomes of it is the test's to say."""
    signal.signal(signal.SIGINT, interrupt)  # pyright: ignore[reportArgumentType]
    if stops_at is not None:
        _stop(stops_at)
    return generate(
        BASE,
        output,
        Unconditional(3 * SHARDS),
        max_new_tokens=6,
        shard_size=3,
        batch_size=2,
        device="cpu",
    )


def _stop(forward: int) -> None:
    predict, left = TransformerBase.predict, iter(range(forward))

    def stopping(*arguments, **settings):
        if next(left, None) is None:
            time.sleep(PATIENCE)
        return predict(*arguments, **settings)

    TransformerBase.predict = stopping


@pytest.fixture
def start() -> Iterator[Callable[..., ForkServerProcess]]:
    """Starts processes that draw; none outlives the test."""
    started = []

    def one(*arguments: object) -> ForkServerProcess:
        process = CONTEXT.Process(target=_draw, args=arguments)
        process.start()
        started.append(process)
        return process

    yield one
    for process in started:
        process.kill()
        process.join()


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def _claims(folder: Path) -> list[Path]:
    return sorted(folder.glob(".shard-*.claim"))


def _shards(folder: Path) -> int:
    return len(list(folder.glob("shard-*.parquet")))


def _content(store: TrajectoryStore) -> list[tuple]:
    return [
        (t.example_id, t.prompt.tolist(), t.response.tolist(), t.order.tolist())
        for t in store.trajectories()
    ]


def test_what_a_killed_process_leaves_is_drawn_by_the_others(
    tmp_path: Path, start: Callable[..., ForkServerProcess]
) -> None:
    folder = tmp_path / "shared"
    victim = start(folder, 15)  # in its second shard, between two batches' ends
    _until(lambda: _shards(folder) == 1)
    others = [start(folder), start(folder)]
    _until(lambda: _shards(folder) == SHARDS - 1)
    _until(lambda: len(_claims(folder)) == 1)  # a claim is given back after its shard is written
    (claim,) = _claims(folder)
    assert json.loads(claim.read_text())["pid"] == victim.pid
    assert all(other.is_alive() for other in others)  # waiting: the victim might still finish
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    for other in others:
        other.join(PATIENCE)
    assert [other.exitcode for other in others] == [0, 0]
    assert not _claims(folder)
    assert _content(TrajectoryStore.open(folder)) == _content(_draw(tmp_path / "alone"))


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_process_asked_to_end_gives_its_claim_back(
    tmp_path: Path, start: Callable[..., ForkServerProcess], asked: signal.Signals
) -> None:
    process = start(tmp_path, 3)
    _until(lambda: bool(_claims(tmp_path)))
    time.sleep(0.5)  # into the forward it stops at
    assert process.pid is not None
    os.kill(process.pid, asked)
    process.join(PATIENCE)
    assert process.exitcode == 128 + asked
    assert not _claims(tmp_path)


def test_a_process_started_with_sigint_ignored_ends_on_sigterm_alone(
    tmp_path: Path, start: Callable[..., ForkServerProcess]
) -> None:
    process = start(tmp_path, 3, signal.SIG_IGN)  # behind `&` in a script
    _until(lambda: bool(_claims(tmp_path)))
    time.sleep(0.5)  # into the forward it stops at
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(1.0)
    assert process.is_alive()
    assert _claims(tmp_path)
    os.kill(process.pid, signal.SIGTERM)
    process.join(PATIENCE)
    assert process.exitcode == 128 + signal.SIGTERM
    assert not _claims(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    """All shards there but the first two."""
    store = _draw(tmp_path)
    store.path(0).unlink()
    store.path(1).unlink()
    return store


def _take(claims: Claims) -> Claim:
    """A claim that was to be had at once."""
    claim = claims.take(_never)
    assert claim is not None
    return claim


def _never() -> None:
    raise AssertionError("there was nothing to wait for")


class _WaitingError(Exception):
    """Nothing is free."""


def _stop_waiting() -> None:
    raise _WaitingError


def test_a_shard_is_claimed_once_and_given_back(store: TrajectoryStore) -> None:
    mine, theirs = Claims(store, 60), Claims(store, 60)
    with _take(mine) as first:
        with _take(theirs) as second:
            assert (first.shard, second.shard) == (0, 1)
            assert mine.look().claimed == [0, 1]
            with pytest.raises(_WaitingError):
                mine.take(_stop_waiting)
        assert mine.look().claimed == [0]
        assert _take(theirs).shard == 1


def _of_another_machine(store: TrajectoryStore, shard: int, silent: float) -> Path:
    """A claim last touched so many seconds ago."""
    path = store.folder / f".shard-{shard:05d}.claim"
    path.write_text(json.dumps({"host": "elsewhere", "pid": os.getpid()}))
    beat = path.stat().st_mtime - silent
    os.utime(path, (beat, beat))
    return path


def test_a_silent_claim_is_taken_over_after_the_timeout_and_a_living_one_is_not(
    store: TrajectoryStore,
) -> None:
    _of_another_machine(store, 0, silent=50)
    _of_another_machine(store, 1, silent=70)
    claims = Claims(store, 60)
    assert _take(claims).shard == 1
    with pytest.raises(_WaitingError):
        claims.take(_stop_waiting)


def test_free_shards_come_before_abandoned_ones(store: TrajectoryStore) -> None:
    _of_another_machine(store, 0, silent=70)
    claims = Claims(store, 60)
    assert [_take(claims).shard, _take(claims).shard] == [1, 0]


def test_a_beat_keeps_a_claim_alive(store: TrajectoryStore) -> None:
    claim = _take(Claims(store, 60))
    os.utime(claim.path, (0, 0))
    claim.beat()
    assert claim.path.stat().st_mtime == 0  # too soon to say it again
    claim.touched -= 7
    claim.beat()
    assert claim.path.stat().st_mtime > 0


def test_a_claim_that_was_taken_over_is_not_given_back_by_its_first_owner(
    store: TrajectoryStore,
) -> None:
    with _take(Claims(store, 60)) as claim:
        path = _of_another_machine(store, claim.shard, silent=0)
    assert path.exists()


def test_claims_of_finished_shards_are_cleared_away(store: TrajectoryStore) -> None:
    path = _of_another_machine(store, 4, silent=0)  # killed between writing and giving back
    _draw(store.folder)
    assert not path.exists()


def test_a_shard_finished_by_its_claimant_while_looking_is_not_drawn_again(
    store: TrajectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder's listing may be older than its files.
    seen = store.names() - {store.path(2).name}
    monkeypatch.setattr(store, "names", lambda: seen)
    claims = Claims(store, 60)
    assert [_take(claims).shard for _ in range(2)] == [0, 1]
    with pytest.raises(_WaitingError):
        claims.take(_stop_waiting)
    assert not (store.folder / ".shard-00002.claim").exists()


def test_a_timeout_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="claim_timeout is 0"):
        generate(BASE, tmp_path, Unconditional(1), claim_timeout=0)
