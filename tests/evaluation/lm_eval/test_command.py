"""lm-eval's own command, with our model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks._index import TaskIndex

from dlmjoint import cli
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.lm_eval.harness import Harness
from dlmjoint.evaluation.lm_eval.model import DLMJoint
from dlmjoint.evaluation.lm_eval.settings import read
from dlmjoint.evaluation.lm_eval_tasks import FOLDER
from tests.distill.processes import command, finish, start
from tests.evaluation.lm_eval.asking import BASE, BOS, PROBLEMS, ROOT, SAMPLER, TASK, evaluated


def _written(out: Path) -> dict[str, Any]:
    """What a command left in a folder: its results, and its texts by document."""
    (results,) = out.rglob("results_*.json")
    (samples,) = out.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text()) | {"texts": {r["doc_id"]: r["resps"] for r in rows}}


ARGUMENTS = ["--model", "dlmjoint", "--tasks", TASK, "--gen_kwargs", "max_gen_toks=6"]
TO = ["--log_samples", "--device", "cpu", "--output_path"]


def _knowing_ours_alone(arguments: list[str]) -> None:
    """The command, in a process that does not read lm-eval's own 14,000 files of tasks."""
    build = TaskIndex.build
    TaskIndex.build = staticmethod(lambda paths, **how: build([FOLDER], **how))
    command(arguments)


def test_the_command_in_two_processes_has_the_results_of_one(tmp_path, tiny, source):
    settings = {"base": BASE, "sampler": SAMPLER, "policy.commits_per_forward": 2, "opening": BOS}
    alone = evaluated(DLMJoint.of(tiny, read(settings)), source, gen_kwargs={"max_gen_toks": 6})
    model = ",".join(f"{name}={value}" for name, value in settings.items())
    given = [*ARGUMENTS, "--model_args", model, "--metadata", f"source={source}"]
    asked = ["lm-eval", "run", *given, *TO, str(tmp_path)]
    assert finish(start(2, _knowing_ours_alone, asked)) == [0, 0]
    two = _written(tmp_path)
    texts = {sample["doc_id"]: sample["resps"] for sample in alone["samples"]["gsm8k_local"]}
    assert two["texts"] == texts
    assert len(texts) == len(PROBLEMS)
    assert two["results"]["gsm8k_local"]["answered,none"] == pytest.approx(
        alone["results"]["gsm8k_local"]["answered,none"]
    )
    assert two["config"]["processes"] == 2
    assert two["config"]["policy"]["init_args"]["commits_per_forward"] == 2


@pytest.mark.slow  # lm-eval reads its 14,000 files of tasks first
def test_lm_evals_plain_command_finds_the_model_by_a_task_file_of_ours(tmp_path, source):
    given = [*ARGUMENTS, "--model_args", f"base={BASE}", "--metadata", f"source={source}"]
    asked = [sys.executable, "-m", "lm_eval", "run", *given, "--limit", "1", *TO, str(tmp_path)]
    places = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path)}
    done = subprocess.run(asked, cwd=ROOT, env=places, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = _written(tmp_path)
    assert found["config"]["model"] == "dlmjoint"
    assert "answered,none" in found["results"]["gsm8k_local"]


def test_a_mistake_in_the_command_ends_in_one_line_before_a_task_is_read(capfd, monkeypatch):
    monkeypatch.setattr(TaskIndex, "build", None)
    arguments = ["lm-eval", "run", *ARGUMENTS, "--model_args", f"base={BASE},polcy=4"]
    with pytest.raises(SystemExit) as failure:
        cli.main(arguments)
    assert failure.value.code == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("dlmjoint: error: --model_args: unrecognized arguments: --polcy=4")


@pytest.mark.parametrize("use", ["the command", "a task"])
def test_without_lm_eval_it_is_said_how_to_get_it(use, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    monkeypatch.delitem(sys.modules, "dlmjoint.evaluation.lm_eval.model")
    monkeypatch.setattr("dlmjoint.evaluation.lm_eval.harness.find_spec", lambda name: None)
    if use == "the command":
        with pytest.raises(SystemExit):
            cli.main(["lm-eval", "ls", "tasks"])
        said = capfd.readouterr().err
    else:
        with pytest.raises(ConfigError) as refused:
            Harness(task="gsm8k", n=1)
        said = str(refused.value)
    assert "pip install 'dlmjoint[eval]'" in said
