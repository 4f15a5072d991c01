"""lm-eval's tasks as ours."""

import json
from dataclasses import replace
from typing import Any

import pytest
from lm_eval.evaluator import simple_evaluate

from dlmjoint import cli
from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.lm_eval.harness import Harness, _manager
from dlmjoint.evaluation.lm_eval.model import DLMJoint
from dlmjoint.evaluation.lm_eval.settings import Settings
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.scoring.score import score
from tests.evaluation.lm_eval.asking import (
    BASE,
    BOS,
    PROBLEMS,
    TASK,
    evaluated,
    model_of,
    published_gsm8k,
)


def test_a_chat_in_lm_eval_and_in_the_wrapped_task_is_the_same_prompt(tiny, source):
    model = DLMJoint.of(tiny, Settings(base=BASE, batch_size=4))
    results = evaluated(
        model,
        source,
        apply_chat_template=True,
        system_instruction="Be brief.",
        gen_kwargs={"max_gen_toks": 2},
    )
    prompts = [sample["arguments"][0][0] for sample in results["samples"]["gsm8k_local"]]
    assert "<|im_start|>system\nBe brief.<|im_end|>" in prompts[0]
    task = Harness(
        task=TASK,
        n=len(PROBLEMS),
        chat=True,
        system_instruction="Be brief.",
        overrides={"metadata": {"source": source}},
    )
    assert task.prompt_ids(tiny, task.examples()) == [tiny.encode(prompt) for prompt in prompts]


def test_a_wrapped_task_is_decoded_graded_and_scored(tmp_path, tiny, source):
    task = published_gsm8k(source, max_new_tokens=8, opening=BOS)
    assert task.name == "gsm8k"
    run(tiny, {"exact": Policy(), "k4": Policy(4)}, [task], tmp_path / "run")
    scores = score(tmp_path / "run")["decoders"]
    assert {name: part["tasks"]["gsm8k"]["accuracy"]["n"] for name, part in scores.items()} == {
        "exact": len(PROBLEMS),
        "k4": len(PROBLEMS),
    }
    grades = json.loads((tmp_path / "run" / "grades" / "k4" / "gsm8k.json").read_text())
    assert all("strict-match" in grade["reason"] for grade in grades)


def test_a_wrapped_task_is_named_in_a_config(tmp_path, source):
    config = tmp_path / "eval.yaml"
    config.write_text(
        f"base: {BASE}\nrun_dir: {tmp_path / 'run'}\ndecoders: {{k8: {{commits_per_forward: 8}}}}\n"
        "tasks:\n- class_path: dlmjoint.evaluation.lm_eval.harness.Harness\n"
        f"  init_args: {{task: {TASK}, n: 2, max_new_tokens: 8,"
        f" overrides: {{metadata: {{source: {source}}}}}}}\n"
    )
    cli.main(["eval", "--config", str(config)])
    cli.main(["score", "--run_dir", str(tmp_path / "run")])
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["decoders"]["k8"]["tasks"]["gsm8k_local"]["accuracy"]["n"] == 2


def test_worked_examples_of_a_wrapped_task_are_lm_evals_own(tiny, tmp_path, source):
    task = replace(published_gsm8k(source), num_fewshot=2)
    results = simple_evaluate(
        model=model_of(tiny, batch_size=4),
        tasks=[{**_config("gsm8k"), **(task.overrides or {})}],
        num_fewshot=2,
        gen_kwargs={"max_gen_toks": 2},
        bootstrap_iters=0,
        task_manager=_manager(None),
    )
    assert results is not None
    samples = results["samples"]["gsm8k"]
    prompts = {sample["doc_id"]: sample["arguments"][0][0] for sample in samples}
    assert [prompts[example.id] for example in task.examples()] == [
        example.prompt for example in task.examples()
    ]
    first = replace(task, n=2).examples()
    assert first == task.examples()[:2]


def _config(name: str) -> dict[str, Any]:
    from lm_eval.tasks._yaml_loader import load_yaml

    path = _manager(None).task_index[name].yaml_path
    assert path is not None
    config = load_yaml(path)
    config.pop("tag")
    return config


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"task": "no_such_task"}, "lm-eval knows no task 'no_such_task'"),
        ({"task": "absent.yaml"}, "there is no file absent.yaml"),
        ({"task": "hellaswag"}, "asks for multiple_choice, not for a text"),
        ({"task": "mmlu"}, "no single task in a YAML file but a group"),
        ({"task": "humaneval"}, "without a sandbox"),
        ({"task": "gsm8k_cot_self_consistency"}, "wants 64 texts"),
    ],
)
def test_a_task_that_cannot_be_graded_here_is_refused_with_the_way_out(settings, word):
    with pytest.raises(ConfigError, match=word):
        Harness(n=1, **settings).examples()


def test_a_wrapped_task_says_what_is_wrong_with_its_settings(source):
    metadata = {"metadata": {"source": source}}
    with pytest.raises(DataError, match="has 4 documents, 5 were asked for"):
        Harness(task="gsm8k_local", n=5, overrides=metadata).examples()
    with pytest.raises(ConfigError, match="n is 0"):
        Harness(task="gsm8k_local", n=0)
    with pytest.raises(ConfigError, match="opening"):
        Harness(task="gsm8k_local", n=1, chat=True, opening=BOS)
    task = Harness(task="gsm8k_local", n=1, metric="bleu", overrides=metadata)
    with pytest.raises(ConfigError, match="no metric 'bleu'"):
        task.grade(task.examples()[0], "9")
    files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "absent.jsonl"}}}
    with pytest.raises(DataError, match="does not load"):
        Harness(task="gsm8k", n=1, overrides=files).examples()


def test_a_metric_between_right_and_wrong_is_refused(tmp_path, source):
    yaml = tmp_path / "half.yaml"
    yaml.write_text(
        "task: half\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {source}}}}}\ntest_split: test\n"
        'output_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
        "metric_list: [{metric: bleu, aggregation: bleu, higher_is_better: true}]\n"
    )
    task = Harness(task=str(yaml), n=1)
    with pytest.raises(DataError, match="neither right nor wrong"):
        task.grade(task.examples()[0], "9")
