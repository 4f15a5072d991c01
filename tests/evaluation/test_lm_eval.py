"""lm-eval with our model, and lm-eval's tasks as ours: the same prompts, texts and grades."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from dlmjoint import cli
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.likelihood import Answer, log_likelihoods
from dlmjoint.evaluation.lm_eval import DLMJoint
from dlmjoint.evaluation.lm_eval_requests import cut_at
from dlmjoint.evaluation.lm_eval_settings import Settings, read
from dlmjoint.evaluation.lm_eval_tasks import FOLDER
from dlmjoint.evaluation.run import run
from dlmjoint.evaluation.score import score
from dlmjoint.evaluation.tasks.gsm8k import GSM8K
from dlmjoint.evaluation.tasks.harness import Harness, _manager
from dlmjoint.models.load import load_base
from tests.conftest import CHECKPOINTS

ROOT = Path(__file__).parents[2]
BASE = str(CHECKPOINTS / "tiny-dream")
SAMPLER = str(CHECKPOINTS / "tiny-joint")
BOS = "<|beginoftext|>"
TASK = str(FOLDER / "gsm8k_local.yaml")

PROBLEMS = [
    ("Tom has 7 pens. Tom buys 2 more pens. How many pens?", "7+2=<<7+2=9>>9.\n#### 9"),
    ("A farm sells 1,200 eggs and 34 nuts. How many?", "1200+34=1234\n#### 1,234"),
    ("It is 3 degrees and falls by 8. What is it?", "3-8=-5\n#### -5"),
    ("Ann splits 5 figs among 2. How many each?", "5/2=2.5\n#### 2.5"),
]
TEXTS = [
    " 7+2=9.\n#### 9",
    " The answer is 9 pens.",
    " So 7 + 2 = 9",
    "\n#### 8",
    " The answer is 9.0\n\nQuestion: And 5?\nAnswer: 5\n#### 5",
    " I do not know.",
    "",
    " ####",
    "#### $9.00",
]
"""Answers to the first problem: right, wrong, unparsable, and what a base adds by itself."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def tiny():
    return load_base(BASE)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return _file(tmp_path / "test.jsonl", PROBLEMS)


def _file(path: Path, problems: list[tuple[str, str]]) -> str:
    rows = ({"question": question, "answer": answer} for question, answer in problems)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _evaluated(model: DLMJoint, source: str, **more: Any) -> dict[str, Any]:
    results = simple_evaluate(
        model=model,
        tasks=["gsm8k_local"],
        task_manager=TaskManager(
            include_path=str(FOLDER),
            include_defaults=False,
            metadata={"source": source, **more.pop("metadata", {})},
        ),
        bootstrap_iters=0,
        **more,
    )
    assert results is not None
    return dict(results)


def _asked(context: str, place: int = 0, repeats: int = 1, **given: Any) -> Instance:
    kwargs = {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 12} | given
    return Instance("generate_until", {}, (context, kwargs), 0, ("t", place, repeats))


def _model(base, **settings: Any) -> DLMJoint:
    return DLMJoint.of(base, Settings(base=BASE, opening=BOS, **settings))


# Native and lm-eval's GSM8K


@pytest.mark.parametrize(("shots", "temperature"), [(0, 1.0), (2, 1.0), (2, 0.0)])
def test_gsm8k_natively_and_through_lm_eval_has_the_same_texts_and_grades(
    tmp_path, tiny, source, shots, temperature
):
    train = _file(tmp_path / "train.jsonl", PROBLEMS[::-1])
    task = GSM8K(
        source=source,
        n=len(PROBLEMS),
        max_new_tokens=16,
        shots=shots,
        shots_source=train,
        opening=BOS,
        draw=Draw(temperature=temperature),
    )
    run(tiny, {"k2": Policy(2)}, [task], tmp_path / "run")
    score(tmp_path / "run")
    lines = (tmp_path / "run" / "generations" / "k2" / "gsm8k.jsonl").read_text().splitlines()
    generations = {line["example_id"]: line for line in map(json.loads, lines)}
    grades = json.loads((tmp_path / "run" / "grades" / "k2" / "gsm8k.json").read_text())

    results = _evaluated(
        _model(tiny, policy=Policy(2), batch_size=3),
        source,
        num_fewshot=shots,
        gen_kwargs={"max_gen_toks": 16, "do_sample": temperature > 0, "temperature": temperature},
        metadata={"shots_source": train},
    )
    samples = results["samples"]["gsm8k_local"]
    assert [sample["doc_id"] for sample in samples] == list(range(len(PROBLEMS)))
    for sample, example, grade in zip(samples, task.examples(), grades, strict=True):
        assert BOS + sample["arguments"][0][0] == example.prompt
        text = generations[example.id]["text"]
        assert sample["resps"] == [[task.answer(text)]]
        assert (bool(sample["exact_match"]), bool(sample["answered"])) == (
            grade["correct"],
            grade["extracted"] is not None,
        )
    assert any(line["text"] for line in generations.values())


class Parrot(DLMJoint):
    """Gives fixed texts in the place of decoded ones."""

    texts: list[str]

    def _text(self, ids: list[int], until: Any) -> str:
        return cut_at(self.texts.pop(0), until)


@pytest.mark.parametrize("text", TEXTS)
def test_right_wrong_and_unparsable_texts_have_one_grade_both_ways(tmp_path, tiny, text):
    source = _file(tmp_path / "one.jsonl", PROBLEMS[:1])
    native = GSM8K(source=source, n=1)
    (example,) = native.examples()
    grade = native.grade(example, text)
    model = Parrot.of(tiny, Settings(base=BASE))
    model.texts = [text]
    results = _evaluated(model, source, gen_kwargs={"max_gen_toks": 2})
    (sample,) = results["samples"]["gsm8k_local"]
    assert (sample["exact_match"], sample["answered"]) == (
        float(grade.correct),
        float(grade.extracted is not None),
    )
    wrapped = Harness(task="gsm8k_local", n=1, overrides={"metadata": {"source": source}})
    assert wrapped.examples()[0].prompt == example.prompt
    assert wrapped.grade(wrapped.examples()[0], text).correct == grade.correct


def test_the_synthetic_texts_are_of_every_kind(tmp_path):
    task = GSM8K(source=_file(tmp_path / "one.jsonl", PROBLEMS[:1]), n=1)
    grades = [task.grade(task.examples()[0], text) for text in TEXTS]
    assert {(grade.correct, grade.extracted is not None) for grade in grades} == {
        (True, True),
        (False, True),
        (False, False),
    }


def _published(source: str, **more: Any) -> Harness:
    """lm-eval's own `gsm8k`, of a local file."""
    files = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": source, "train": source}},
    }
    return Harness(task="gsm8k", n=len(PROBLEMS), num_fewshot=0, overrides=files, **more)


def test_lm_evals_own_filters_agree_with_the_reader_on_answers_in_the_published_format(source):
    native = GSM8K(source=source, n=len(PROBLEMS))
    for which in ("strict-match", "flexible-extract"):
        task = _published(source, filter=which)
        for example, mine in zip(task.examples(), native.examples(), strict=True):
            assert example.prompt == mine.prompt
            right = f" {example.reference}"
            assert task.grade(example, right).correct
            assert native.grade(mine, right).correct
            assert not task.grade(example, " 1\n#### 77").correct
            assert not native.grade(mine, " 1\n#### 77").correct
            assert task.grade(example, " I do not know.").extracted is None


@pytest.mark.parametrize(
    ("text", "native", "strict", "flexible"),
    [
        ("The answer is 9. She had 7 before.", True, False, False),
        ("That makes 9", True, False, True),
        ("#### 9.0", True, False, False),
        ("#### 9. Not 8.", True, True, False),
    ],
)
def test_where_lm_evals_own_filters_differ_from_the_reader(source, text, native, strict, flexible):
    example = GSM8K(source=source, n=1).examples()[0]
    assert GSM8K().grade(example, text).correct == native
    for which, expected in (("strict-match", strict), ("flexible-extract", flexible)):
        assert _published(source, filter=which).grade(example, text).correct == expected


# Texts


def test_a_text_ends_at_its_stop_and_its_temperature_is_the_tasks(tiny):
    model = _model(tiny, policy=Policy(4))
    question = "Tom has 7 pens. Tom buys 2 more pens. How many pens does Tom have now?\n"
    (whole,) = model.generate_until([_asked(question, until=[])], disable_tqdm=True)
    (cut,) = model.generate_until([_asked(question, until=["="])], disable_tqdm=True)
    assert "=" in whole
    assert cut == whole.partition("=")[0]
    warm = [
        model.generate_until([_asked(question, i, do_sample=True, temperature=2.0)], True)[0]
        for i in range(4)
    ]
    assert len(set(warm)) > 1, "noise is the document's"
    assert model.generate_until([_asked(question, 3, until=[])], True) == [whole], "greedy has none"


def test_a_stop_may_be_a_special_token(tiny):
    model = _model(tiny)
    ids = [*tiny.encode("9 pens"), *tiny.encode("<|im_start|>"), *tiny.encode("user")]
    assert model._text(ids, ["<|im_start|>"]) == "9 pens"
    assert model._text(ids, []) == "9 pensuser"


def test_texts_do_not_depend_on_batches_order_or_the_other_requests(tiny):
    asked = [
        _asked("Tom has 7 pens.\n" * (1 + i % 3), i, do_sample=True, temperature=2.0)
        for i in range(7)
    ]
    alone = _model(tiny).generate_until(asked, disable_tqdm=True)
    batched = _model(tiny, batch_size=4).generate_until(asked[::-1], disable_tqdm=True)
    assert batched[::-1] == alone
    assert _model(tiny, seed=1).generate_until(asked, disable_tqdm=True) != alone


def test_several_texts_of_a_document_differ_and_padding_is_not_decoded(tiny):
    model = _model(tiny, batch_size=8)
    several = _asked("Tom has 7 pens.\n", repeats=3, do_sample=True, temperature=3.0)
    texts = model.generate_until([several] * 5, disable_tqdm=True)
    assert len(set(texts[:3])) == 3
    assert texts[3:] == [texts[0]] * 2
    assert model.tally.tokens == 3 * 12


def test_a_joint_sampler_is_named_beside_the_base(tiny):
    model = _model(tiny, policy=Policy(4), sampler=SAMPLER)
    model.generate_until([_asked("Tom has 7 pens.\n", max_gen_toks=24)], disable_tqdm=True)
    assert (model.tally.base_forwards, model.tally.sampler_passes) == (6, 18)
    info = model.get_model_info()
    assert info["policy"]["init_args"]["refine"]["init_args"] == {"sampler": SAMPLER}
    assert info["spent_by_this_process"]["tokens"] == 24
    json.dumps(info)


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_decoded(tiny):
    model = _model(tiny)
    with pytest.raises(ConfigError, match=r"document 1 of t has a prompt of \d+ tokens"):
        model.generate_until([_asked("Tom"), _asked("Tom " * 2040, 1)], disable_tqdm=True)
    assert model.tally.tokens == 0


def test_settings_of_other_decoders_are_refused_unless_they_change_nothing(tiny):
    model = _model(tiny)
    assert model.generate_until([_asked("Tom", num_beams=1)], disable_tqdm=True)
    with pytest.raises(ConfigError, match="num_beams=4, which has no meaning here"):
        model.generate_until([_asked("Tom", num_beams=4)], disable_tqdm=True)


# Likelihoods


def test_a_likely_continuation_has_more_likelihood_and_is_written_by_the_greedy_decoder(tiny):
    model = _model(tiny, samples=31)
    question = "Tom has 7 pens. Tom buys 2 more pens. How many pens does Tom have now?"
    (text,) = model.generate_until([_asked(question, until=[], max_gen_toks=6)], True)
    assert len(tiny.encode(text)) == 6
    pairs = [(question, text), (question, "\n7-2=5."), ("", "Tom")]
    asked = [Instance("loglikelihood", {}, pair, 0, ("t", 0, 1)) for pair in pairs]
    (right, written), (wrong, not_written), (first, _) = model.loglikelihood(asked, True)
    assert right > wrong + 5
    assert (written, not_written) == (True, False)
    ids = tuple(tiny.encode(text))
    prompt = tuple(tiny.encode(BOS + question))
    assert right == pytest.approx(log_likelihoods(tiny, [Answer(prompt, ids)], samples=31)[0])
    one = torch.tensor(log_likelihoods(tiny, [Answer((tiny.bos_id,), tuple(tiny.encode("Tom")))]))
    assert first == pytest.approx(one.item())
    silent = _model(tiny, samples=31, greedy=False).loglikelihood(asked, True)
    assert [value for _, value in silent] == [False] * 3


def test_a_multiple_choice_task_is_answered_and_its_answers_are_kept(tmp_path, tiny):
    rows = [{"question": f"Tom has {n} pens. Tom has", "answer": n - 2} for n in (3, 5)]
    path = tmp_path / "choices.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["1", "3", "3 pens pens"],
        "doc_to_target": "{{0 if answer == 1 else 1}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    found = []
    for _ in range(2):
        results = simple_evaluate(
            model=_model(tiny, samples=7, batch_size=4),
            tasks=[task],
            task_manager=TaskManager(include_defaults=False),
            use_cache=str(tmp_path / "answers"),
            bootstrap_iters=0,
        )
        assert results is not None
        found.append([sample["filtered_resps"] for sample in results["samples"]["choices"]])
    assert [list(map(tuple, one)) for one in found[1]] == [
        list(map(tuple, one)) for one in found[0]
    ]
    for sample, row in zip(found[0], rows, strict=True):
        prompt = tuple(tiny.encode(BOS + row["question"]))
        digits = [Answer(prompt, tuple(tiny.encode(f" {digit}"))) for digit in (1, 3)]
        expected = log_likelihoods(tiny, digits, samples=7)
        assert [value for value, _ in sample[:2]] == pytest.approx(expected, rel=1e-4)


def test_a_whole_text_is_scored_in_windows_that_cover_every_token_once(tiny, monkeypatch):
    model = _model(tiny, samples=3)
    scored: list[Answer] = []
    monkeypatch.setattr(model, "_likelihoods", lambda answers: scored.extend(answers) or [-1.0])
    monkeypatch.setattr(tiny, "max_length", 10)
    text = "Tom has 7 pens. Tom buys 2 more pens. How many pens does Tom have now?"
    model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)], True)
    assert [token for answer in scored for token in answer.tokens] == tiny.encode(text)
    assert scored[0].prompt == (tiny.bos_id,)
    assert all(answer.prompt[-1:] == one.tokens[-1:] for one, answer in pairwise(scored))
    assert max(len(answer.prompt + answer.tokens) for answer in scored) <= 10


def test_whole_texts_of_the_language_are_likelier_than_others(tiny):
    model = _model(tiny, samples=15, batch_size=15)
    texts = ["Tom has 7 pens. Tom loses 2 pens.", "pens pens 7 has Tom. loses Tom 2."]
    asked = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    good, bad = model.loglikelihood_rolling(asked, disable_tqdm=True)
    assert bad < good - 10 < 0


# Chats


def test_a_chat_is_the_tokenizers_template(tiny):
    model = DLMJoint.of(tiny, Settings(base=BASE))
    said = [{"role": "user", "content": "Tom?"}]
    assert tiny.encode(model.apply_chat_template(said)) == tiny.encode_chat("Tom?")
    begun = [*said, {"role": "assistant", "content": "Tom has"}]
    assert model.apply_chat_template(begun, add_generation_prompt=False).endswith("Tom has")
    with pytest.raises(ConfigError, match="opening is not used in a chat"):
        _model(tiny).apply_chat_template(said)


def test_a_chat_in_lm_eval_and_in_the_wrapped_task_is_the_same_prompt(tiny, source):
    model = DLMJoint.of(tiny, Settings(base=BASE, batch_size=4))
    results = _evaluated(
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


# lm-eval's tasks as ours


def test_a_wrapped_task_is_decoded_graded_and_scored(tmp_path, tiny, source):
    task = _published(source, max_new_tokens=8, opening=BOS)
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
        "tasks:\n- class_path: dlmjoint.evaluation.tasks.harness.Harness\n"
        f"  init_args: {{task: {TASK}, n: 2, max_new_tokens: 8,"
        f" overrides: {{metadata: {{source: {source}}}}}}}\n"
    )
    cli.main(["eval", "--config", str(config)])
    cli.main(["score", "--run_dir", str(tmp_path / "run")])
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["decoders"]["k8"]["tasks"]["gsm8k_local"]["accuracy"]["n"] == 2


def test_worked_examples_of_a_wrapped_task_are_lm_evals_own(tiny, tmp_path, source):
    task = replace(_published(source), num_fewshot=2)
    results = simple_evaluate(
        model=_model(tiny, batch_size=4),
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


# Settings


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, Policy()),
        ({"policy": {"commits_per_forward": 4}}, Policy(4)),
        ({"policy": '{"commits_per_forward": 4}'}, Policy(4)),
        ({"policy.commits_per_forward": 4, "policy.block_length": 8}, Policy(4, block_length=8)),
    ],
)
def test_a_policy_is_json_or_dotted(given, policy):
    assert read({"base": BASE, **given}).decoder() == policy


def test_a_policy_is_a_file_that_further_settings_change(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("commits_per_forward: 4\norder: dlmjoint.decoding.order.LeftToRight\n")
    found = read({"base": BASE, "policy": str(path), "policy.commits_per_forward": 2}).decoder()
    assert (found.commits_per_forward, type(found.order).__name__) == (2, "LeftToRight")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"polcy": 1}, "polcy"),
        ({"base": None}, "base"),
        ({"policy": "absent.yaml"}, "absent.yaml"),
        ({"policy.commits_per_forward": 0}, "0"),
        ({"batch_size": "auto:4"}, "batch_size is auto"),
        ({"samples": 0}, "samples is 0"),
        ({"sampler": SAMPLER}, "nothing to do at one token per forward"),
        (
            {
                "sampler": SAMPLER,
                "policy": {
                    "commits_per_forward": 2,
                    "refine": {
                        "class_path": "dlmjoint.decoding.refine.Trained",
                        "init_args": {"sampler": SAMPLER},
                    },
                },
            },
            "both name a refinement",
        ),
    ],
)
def test_model_args_that_cannot_work_are_refused(given, word):
    with pytest.raises(ConfigError, match=word):
        read({"base": BASE, **given})


# The command


def _command(arguments: list[str], out: Path, **environment: str) -> dict[str, Any]:
    started = subprocess.run(
        [*arguments, "--output_path", str(out), "--log_samples", "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr[-2000:]
    (results,) = out.rglob("results_*.json")
    (samples,) = out.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text()) | {"texts": {r["doc_id"]: r["resps"] for r in rows}}


ARGUMENTS = ["--model", "dlmjoint", "--tasks", TASK, "--gen_kwargs", "max_gen_toks=6"]


def test_the_command_in_two_processes_has_the_results_of_one(tmp_path, tiny, source):
    settings = {"base": BASE, "sampler": SAMPLER, "policy.commits_per_forward": 2, "opening": BOS}
    alone = _evaluated(DLMJoint.of(tiny, read(settings)), source, gen_kwargs={"max_gen_toks": 6})
    model = ",".join(f"{name}={value}" for name, value in settings.items())
    given = [*ARGUMENTS, "--model_args", model, "--metadata", f"source={source}"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = _command([*launch, "-m", "dlmjoint", "lm-eval", "run", *given], tmp_path)
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
    found = _command([sys.executable, "-m", "lm_eval", "run", *given, "--limit", "1"], tmp_path)
    assert found["config"]["model"] == "dlmjoint"
    assert "answered,none" in found["results"]["gsm8k_local"]


def test_a_mistake_in_the_command_ends_in_one_line(capfd):
    arguments = ["lm-eval", "run", *ARGUMENTS, "--model_args", f"base={BASE},polcy=4"]
    with pytest.raises(SystemExit) as failure:
        cli.main(arguments)
    assert failure.value.code == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("dlmjoint: error: --model_args: unrecognized arguments: --polcy=4")


@pytest.mark.parametrize("use", ["the command", "a task"])
def test_without_lm_eval_it_is_said_how_to_get_it(use, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    monkeypatch.delitem(sys.modules, "dlmjoint.evaluation.lm_eval")
    monkeypatch.setattr("dlmjoint.evaluation.tasks.harness.find_spec", lambda name: None)
    if use == "the command":
        with pytest.raises(SystemExit):
            cli.main(["lm-eval", "ls", "tasks"])
        said = capfd.readouterr().err
    else:
        with pytest.raises(ConfigError) as refused:
            Harness(task="gsm8k", n=1)
        said = str(refused.value)
    assert "pip install 'dlmjoint[eval]'" in said
