"""An evaluation that is killed, or shared among processes, ends as one that was left alone.

Every run is a process of its own, started from a server that has the library loaded.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import yaml

from dlmjoint.cli import main
from tests.distill.processes import CONTEXT

METRICS = "dlmjoint.evaluation.metrics"
TASKS = "dlmjoint.evaluation.tasks"
SAMPLER = {
    "class_path": "dlmjoint.decoding.refine.Trained",
    "init_args": {"sampler": "checkpoints/tiny-joint"},
}
CONFIG = {
    "base": "checkpoints/tiny-dream",
    "batch_size": 8,
    "decoders": {
        "exact": {},
        "marginals-k2": {"commits_per_forward": 2},
        "marginals-k4": {"commits_per_forward": 4},
        "joint-k4": {"commits_per_forward": 4, "refine": SAMPLER},
    },
    "tasks": [
        {
            "class_path": f"{TASKS}.unconditional.Unconditional",
            "init_args": {
                "n": 40,
                "max_new_tokens": 16,
                "draw": {"forbid": ["<|endoftext|>"]},
                "metrics": [
                    {"class_path": f"{METRICS}.agreement.CorpusAgreement"},
                    {"class_path": f"{METRICS}.nll.NLL"},
                    {"class_path": f"{METRICS}.trajectory_kl.TrajectoryKL"},
                ],
            },
        },
        {
            "class_path": f"{TASKS}.word_problems.WordProblems",
            "init_args": {"n": 20, "max_new_tokens": 16},
        },
        {
            "class_path": f"{TASKS}.word_problems.WordProblems",
            "init_args": {
                "name": "drawn",
                "n": 20,
                "max_new_tokens": 16,
                "draw": {"temperature": 1.0},
            },
        },
    ],
}
"""Four decoders, three tasks, 360 generations with the references."""


def _evaluate(arguments: list[str], environment: dict[str, str]) -> None:
    """In a process of its own: what the command line does."""
    os.environ.update(environment)
    main(["eval", *arguments])


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Starts processes that have imported everything, and computed nothing."""
    return CONTEXT


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "eval.yaml"
    path.write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def start(server, config):
    """Starts an evaluation into a folder; returns its process."""

    def start(run_dir: Path, *more: str, **environment: str) -> ForkServerProcess:
        arguments = ["--config", str(config), "--run_dir", str(run_dir), *more]
        threads = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        process = server.Process(target=_evaluate, args=(arguments, threads | environment))
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory) -> Path:
    """A run that nobody disturbed."""
    run_dir = tmp_path_factory.mktemp("runs") / "alone"
    process = start(run_dir)
    process.join()
    assert process.exitcode == 0
    return run_dir


def _scores(run_dir: Path) -> dict:
    """scores.json without costs, which are this machine's of this minute."""
    scores = json.loads((run_dir / "scores.json").read_text())
    del scores["provenance"]
    for part in scores["decoders"].values():
        del part["cost"]
    return scores


def _generations(run_dir: Path) -> dict[str, list[dict]]:
    """Every line of every file without its time; ids must count up, and nothing else may lie there."""
    found = {}
    for path in sorted(run_dir.rglob("*.jsonl*")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["example_id"] for line in lines] == list(range(len(lines)))
        found[str(path.relative_to(run_dir))] = [line | {"seconds": 0} for line in lines]
    return found


def _lines(run_dir: Path) -> list[bytes]:
    """Every complete line on disk. A file may be gone between its finding and its reading: parts are put
    together, and a file that is being written has another name until it is whole."""
    while True:
        paths = [p for p in run_dir.rglob("*.jsonl*") if not p.name.startswith(".")]
        try:
            texts = [path.read_bytes() for path in paths]
        except FileNotFoundError:
            continue
        return [line for text in texts for line in text.splitlines(True) if line[-1:] == b"\n"]


def _kill_after(process: ForkServerProcess, run_dir: Path, lines: int) -> None:
    """SIGKILL once so many lines are on disk."""
    while process.is_alive() and len(_lines(run_dir)) < lines:
        time.sleep(0.01)
    assert process.is_alive(), "it finished before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_an_evaluation_killed_three_times_ends_with_the_scores_of_an_undisturbed_one(
    start, alone, tmp_path
):
    moments = sorted(random.Random(0).sample(range(20, 340), 3))
    kept: list[bytes] = []
    for moment in moments:
        _kill_after(start(tmp_path), tmp_path, moment)
        assert not (tmp_path / "scores.json").exists()
        now = _lines(tmp_path)
        assert set(kept) <= set(now), "what was there is there"
        kept = now
    process = start(tmp_path)
    process.join()
    assert process.exitcode == 0
    assert _scores(tmp_path) == _scores(alone)
    assert _generations(tmp_path) == _generations(alone)
    assert set(kept) <= set(_lines(tmp_path)), "times too: nothing was decoded twice"


def test_two_processes_end_with_the_scores_of_one(start, alone, tmp_path):
    """Started as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    ranks = [
        start(tmp_path, "--devices=2", **world, **shared, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(2)
    ]
    writers = set()
    while any(rank.is_alive() for rank in ranks):
        writers |= {path.name.partition(".part-")[2] for path in tmp_path.rglob("*.part-*")}
        time.sleep(0.01)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert len(writers) == 2, "both decoded"
    assert _scores(tmp_path) == _scores(alone)
    assert _generations(tmp_path) == _generations(alone)


def test_more_processes_than_were_asked_for_are_refused(start, tmp_path):
    process = start(tmp_path, WORLD_SIZE="2", RANK="1", LOCAL_RANK="1")
    process.join()
    assert process.exitcode == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_processes_started_by_the_command_survive_a_kill_too(config, alone, tmp_path):
    """`--devices 2`, the first process killed, its companion left to notice, and run again."""
    command = [sys.executable, "-m", "dlmjoint", "eval", "--config", str(config), "--devices", "2"]
    command += ["--run_dir", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None and len(_lines(tmp_path)) < 100:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = _lines(tmp_path)
    subprocess.run(command, env=environment, check=True, timeout=600)
    assert _scores(tmp_path) == _scores(alone)
    assert set(kept) <= set(_lines(tmp_path))
    assert _generations(tmp_path) == _generations(alone)
