import json
import logging
import os
from dataclasses import replace

import pytest

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.disk.provenance import write_text
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.running import generations
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.running.sharding import Processes, launch
from tests.evaluation.test_metrics import generation


class PulledPlugError(Exception):
    """Stands for a crash."""


def contents(run_dir):
    """Every line of every file, without its time."""
    found = {}
    for path in sorted(run_dir.rglob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[str(path.relative_to(run_dir))] = [line | {"seconds": 0} for line in lines]
    return found


@pytest.fixture(scope="module")
def whole(base, setup, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole")
    run(base, setup.decoders, setup.tasks, run_dir, batch_size=5)
    return run_dir


def test_a_run_writes_one_line_per_decoder_task_and_example(whole, setup):
    found = contents(whole)
    assert {path: len(lines) for path, lines in found.items()} == {
        "generations/exact/unconditional.jsonl": 12,
        "generations/exact/word_problems.jsonl": 5,
        "generations/marginals-k4/unconditional.jsonl": 12,
        "generations/marginals-k4/word_problems.jsonl": 5,
        "reference/unconditional.jsonl": 12,
    }
    line = found["generations/marginals-k4/unconditional.jsonl"][3]
    assert line["example_id"] == 3
    assert sorted(line["order"]) == list(range(10))
    assert line["base_forwards"] == 3  # ceil(10 tokens / 4)
    assert line["columns"] == 3 * 11  # with the prompt's one


def test_a_run_is_independent_of_the_batch_size(whole, base, setup, tmp_path):
    run(base, setup.decoders, setup.tasks, tmp_path, batch_size=64)
    drop = {"log_probs": 0, "rows": 0}  # log-probabilities differ in the last float32 digit
    ours, theirs = (
        {path: [line | drop for line in lines] for path, lines in contents(d).items()}
        for d in (tmp_path, whole)
    )
    assert ours == theirs


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    whole, base, setup, tmp_path, monkeypatch
):
    calls = []

    def unplugged(path, lines):
        calls.append(path)
        if len(calls) == 4:
            generations_append(path, lines[:2])
            raise PulledPlugError
        generations_append(path, lines)

    generations_append = generations.append
    monkeypatch.setattr(generations, "append", unplugged)
    with pytest.raises(PulledPlugError):
        run(base, setup.decoders, setup.tasks, tmp_path, batch_size=5)
    monkeypatch.setattr(generations, "append", generations_append)
    assert contents(tmp_path) != contents(whole)
    run(base, setup.decoders, setup.tasks, tmp_path, batch_size=5)
    assert contents(tmp_path) == contents(whole)


def test_complete_lines_are_kept_and_a_half_written_one_is_redone(
    whole, base, setup, tmp_path, caplog
):
    run(base, setup.decoders, setup.tasks, tmp_path, batch_size=5)
    path = tmp_path / "generations" / "exact" / "unconditional.jsonl"
    before = path.read_bytes()
    path.write_bytes(before[:-20])
    with caplog.at_level(logging.WARNING):
        run(base, setup.decoders, setup.tasks, tmp_path, batch_size=5)
    assert "line 12 is half written" in caplog.text
    kept = before.splitlines()[:-1]
    assert path.read_bytes().splitlines()[:-1] == kept  # times too: not decoded again
    assert contents(tmp_path) == contents(whole)


def test_parts_are_gathered_by_example_whatever_state_a_kill_left_them_in(tmp_path, caplog):
    path = tmp_path / "task.jsonl"
    lines = [generation(f"text {i}", example_id=i) for i in range(6)]
    generations.append(path, lines[2:3])
    generations.append(generations.part(path, "b"), [lines[5], lines[0]])
    generations.append(generations.part(path, "a"), [lines[2], lines[1], lines[4]])
    with generations.part(path, "a").open("r+b") as file:
        file.truncate(generations.part(path, "a").stat().st_size - 3)  # half of example 4
    with caplog.at_level(logging.WARNING):
        generations.gather(path)
    assert "line 3 is half written" in caplog.text
    assert generations.read(path) == [lines[i] for i in (0, 1, 2, 5)]
    assert [each.name for each in tmp_path.iterdir()] == ["task.jsonl"]
    before = path.stat().st_mtime_ns
    generations.gather(path)
    assert path.stat().st_mtime_ns == before


def test_a_gathering_that_is_killed_before_it_is_tidy_repeats_nothing(tmp_path, monkeypatch):
    path = tmp_path / "task.jsonl"
    lines = [generation(f"text {i}", example_id=i) for i in range(3)]
    generations.append(generations.part(path, "a"), lines)

    def unplugged(*_, **__):
        raise PulledPlugError

    with monkeypatch.context() as patched:
        patched.setattr(type(path), "unlink", unplugged)
        with pytest.raises(PulledPlugError):
            generations.gather(path)
    assert len(list(tmp_path.iterdir())) == 2
    generations.gather(path)
    assert generations.read(path) == lines
    assert [each.name for each in tmp_path.iterdir()] == ["task.jsonl"]


def test_shares_are_disjoint_and_together_everything():
    items = list(range(11))
    shares = [Processes(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_whose_launcher_is_gone_stops_and_the_first_goes_on():
    Processes(1, 2).stop_if_orphaned()
    Processes(0, 2, parent=-1).stop_if_orphaned()
    with pytest.raises(SystemExit, match="gone"):
        Processes(1, 2, parent=-1).stop_if_orphaned()


def test_processes_that_do_not_agree_with_what_was_started_are_refused(monkeypatch):
    assert launch("cpu") == Processes(device="cpu")
    with pytest.raises(ConfigError, match="say cuda"):
        launch("cuda:1", 2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="4 processes were started"):
        launch("cpu")


def test_a_spoilt_line_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("rubbish\nmore\n")
    with pytest.raises(DataError, match="line 1"):
        generations.read(path)


def test_other_settings_in_an_old_folder_are_refused_by_name(base, setup, tmp_path):
    tasks = [replace(setup.word_problems, n=2)]
    run(base, setup.decoders, tasks, tmp_path)
    with pytest.raises(ConfigError, match=r"decoders.marginals-k4.policy.commits_per_forward: 4"):
        run(base, setup.decoders | {"marginals-k4": Policy(2)}, tasks, tmp_path)
    with pytest.raises(ConfigError, match="seed: 0 there, 7 now"):
        run(base, setup.decoders, tasks, tmp_path, seed=7)
    with pytest.raises(ConfigError, match=r"tasks.word_problems.max_new_tokens: 6 there"):
        run(base, setup.decoders, [replace(tasks[0], max_new_tokens=7)], tmp_path)


def test_a_run_may_grow_by_examples_and_decoders(whole, base, setup, tmp_path):
    run(base, {"exact": Policy()}, [replace(setup.word_problems, n=2)], tmp_path, batch_size=5)
    run(base, setup.decoders, [setup.word_problems], tmp_path, batch_size=5)
    grown, all_of_it = contents(tmp_path), contents(whole)
    drop = {"log_probs": 0, "rows": 0}
    for path, lines in grown.items():
        assert [line | drop for line in lines] == [line | drop for line in all_of_it[path]]


def test_fewer_examples_do_not_take_the_place_of_scores(base, setup, tmp_path):
    task, decoders = replace(setup.word_problems, n=3), {"exact": Policy()}
    run(base, decoders, [task], tmp_path)
    run(base, decoders, [replace(task, n=2)], tmp_path)  # nothing is scored yet
    run(base, decoders, [task], tmp_path)
    (tmp_path / "scores.json").write_text("{}")
    with pytest.raises(ConfigError, match="has scores of 3 examples of word_problems, which 2 "):
        run(base, decoders, [replace(task, n=2)], tmp_path)
    assert (tmp_path / "scores.json").read_text() == "{}"


def test_what_a_killed_run_was_writing_goes_with_the_next_start(base, setup, tmp_path, monkeypatch):
    task, decoders = replace(setup.word_problems, n=2), {"exact": Policy()}
    run(base, decoders, [task], tmp_path)
    monkeypatch.setattr("dlmjoint.disk.atomic.os.replace", lambda *_: os._exit(1))
    process = os.fork()
    if not process:
        write_text(tmp_path / "generations" / "exact" / "word_problems.jsonl", "half")
    os.waitpid(process, 0)
    monkeypatch.undo()
    assert list(tmp_path.rglob(".word_problems.jsonl.*"))
    run(base, decoders, [task], tmp_path)
    assert not list(tmp_path.rglob(".*"))


def test_the_tasks_draw_replaces_the_decoders(base, setup, tmp_path):
    task = replace(setup.word_problems, n=2)
    run(base, {"a": Policy(), "b": Policy(draw=Draw(temperature=9.0))}, [task], tmp_path)
    found = contents(tmp_path)
    assert found["generations/a/word_problems.jsonl"] == found["generations/b/word_problems.jsonl"]


def test_references_share_no_noise_with_decoders(whole, base, setup, tmp_path):
    found = contents(whole)
    exact = [line["tokens"] for line in found["generations/exact/unconditional.jsonl"]]
    assert exact != [line["tokens"] for line in found["reference/unconditional.jsonl"]]
    with pytest.raises(ConfigError, match="not be independent"):
        run(base, setup.decoders, setup.tasks, tmp_path, seed=3, reference_seed=3)


def test_without_an_exact_decoder_the_ceiling_is_drawn(base, setup, tmp_path):
    run(base, {"marginals-k4": Policy(4)}, [setup.unconditional], tmp_path)
    assert len(contents(tmp_path)["ceiling/unconditional.jsonl"]) == 12


@pytest.mark.parametrize("name", ["a/b", "", ".hidden"])
def test_names_that_are_no_file_names_are_refused(base, setup, tmp_path, name):
    with pytest.raises(ConfigError, match="names files"):
        run(base, {name: Policy()}, [setup.word_problems], tmp_path)


def test_a_prompt_too_long_for_the_base_is_refused_before_decoding(base, setup, tmp_path):
    with pytest.raises(ConfigError, match="columns"):
        run(base, setup.decoders, [replace(setup.word_problems, max_new_tokens=2048)], tmp_path)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_examples_do_not_depend_on_how_many_there_are(setup):
    task = setup.word_problems
    assert replace(task, n=2).examples() == task.examples()[:2]
