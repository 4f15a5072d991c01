"""Trajectories: exact, resumable, the same for any batch size and number of processes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dlmjoint
from dlmjoint.decoding.draw import Draw, forbid
from dlmjoint.decoding.early_rules.end_of_text import EndOfText
from dlmjoint.errors import ConfigError, DataError, MismatchError
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.tiny.prompts import Questions
from dlmjoint.trajectories.generate import generate
from dlmjoint.trajectories.prompts import FromDataset, Mixture, PromptFile, Unconditional
from dlmjoint.trajectories.store import TrajectoryStore
from dlmjoint.types import Canvas, Prediction
from tests.conftest import CHECKPOINTS, GOLDEN

BASE = str(GOLDEN / "dream")


def _draw(output: Path, **settings) -> TrajectoryStore:
    arguments = {
        "prompts": Unconditional(10),
        "max_new_tokens": 6,
        "shard_size": 4,
        "batch_size": 3,
        "device": "cpu",
    } | settings
    return generate(BASE, output, **arguments)


def _content(store: TrajectoryStore) -> list[tuple]:
    return [
        (t.example_id, t.prompt.tolist(), t.response.tolist(), t.order.tolist())
        for t in store.trajectories()
    ]


def test_a_trajectory_is_what_generate_draws(tmp_path: Path, golden_dream: TransformerBase) -> None:
    store = _draw(tmp_path)
    out = dlmjoint.generate(golden_dream, 10, max_new_tokens=6)
    assert _content(store) == [
        (t.example_id, t.prompt.tolist(), t.response.tolist(), t.order.tolist())
        for t in out.trajectories
    ]


def test_log_probs_are_the_bases_own_at_every_state(
    tmp_path: Path, golden_dream: TransformerBase
) -> None:
    trajectory = _draw(tmp_path).trajectories()[3]
    for step, column in enumerate(trajectory.order.tolist()):
        state = trajectory.state(step, golden_dream.mask_id)
        _, logits = golden_dream.score(torch.cat([trajectory.prompt, state])[None])
        logits = forbid(logits, golden_dream.forbidden_ids)
        log_probs = logits[0, 1 + column].double().log_softmax(-1)
        expected = log_probs[trajectory.response[column]]
        torch.testing.assert_close(trajectory.log_probs[step], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_content_does_not_depend_on_the_batch_size(tmp_path: Path, batch_size: int) -> None:
    expected = _content(_draw(tmp_path / "a"))
    assert _content(_draw(tmp_path / "b", batch_size=batch_size)) == expected


@pytest.mark.parametrize("drafter", ["marginals", "sampler"])
def test_verified_drafts_leave_the_shards_what_they_are(tmp_path: Path, drafter: str) -> None:
    sampler = None
    if drafter == "sampler":
        sampler = str(tmp_path / "sampler")
        JointSampler.from_base(load_base(BASE)).save_pretrained(sampler)
    plain = _draw(tmp_path / "plain")
    drafted = _draw(tmp_path / "drafted", drafts=3, sampler=sampler)
    assert _content(drafted) == _content(plain)
    assert drafted.manifest == plain.manifest


def test_a_sampler_without_drafts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="drafts is 1"):
        _draw(tmp_path, sampler="anywhere")


def test_an_interrupted_run_continues_to_the_same_content(tmp_path: Path) -> None:
    whole = _draw(tmp_path / "a")
    part = _draw(tmp_path / "b")
    part.path(1).unlink()
    untouched = part.path(0).stat().st_mtime_ns
    assert part.missing() == [1]
    assert _content(_draw(tmp_path / "b")) == _content(whole)
    assert part.path(0).stat().st_mtime_ns == untouched


def test_a_killed_writer_leaves_no_shard_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "replace", _die)
    with pytest.raises(KeyboardInterrupt):
        _draw(tmp_path)
    monkeypatch.undo()
    # The manifest was renamed by the same call, so nothing at all may look finished.
    assert not list(tmp_path.glob("shard-*.parquet"))


def _die(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("processes", [1, 2])
def test_content_does_not_depend_on_the_number_of_processes(tmp_path: Path, processes: int) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "dlmjoint", "generate", "--base", BASE]
    command += ["--output", str(output), "--prompts", "dlmjoint.trajectories.prompts.Unconditional"]
    command += ["--prompts.n", "10"]
    command += ["--max_new_tokens", "6", "--shard_size", "4", "--batch_size", "3"]
    command += ["--device", "cpu", "--devices", str(processes)]
    command += ["--strategy", "ddp"] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    assert _content(TrajectoryStore.open(output)) == _content(_draw(tmp_path / "expected"))


def test_prompts_from_a_text_file_a_jsonl_file_and_a_data_set_are_the_same(
    tmp_path: Path, golden_dream: TransformerBase
) -> None:
    texts = ["Natalia sold clips.", "How many?"]
    (tmp_path / "p.txt").write_text("\n".join(texts) + "\n\n")
    (tmp_path / "p.jsonl").write_text("".join(f'{{"prompt": "{text}"}}\n' for text in texts))
    expected = [golden_dream.encode(text) for text in texts]
    assert PromptFile(tmp_path / "p.txt").ids(golden_dream) == expected
    assert PromptFile(tmp_path / "p.jsonl").ids(golden_dream) == expected
    source = FromDataset("json", column="prompt", data_files=str(tmp_path / "p.jsonl"))
    assert source.ids(golden_dream) == expected
    both = Mixture([Unconditional(1), PromptFile(tmp_path / "p.txt")])
    assert both.ids(golden_dream) == [[golden_dream.bos_id], *expected]


def test_chat_prompts_go_through_the_template(
    tmp_path: Path, golden_dream: TransformerBase
) -> None:
    (tmp_path / "p.txt").write_text("What is 2+3?\n")
    (ids,) = PromptFile(tmp_path / "p.txt", chat=True).ids(golden_dream)
    assert golden_dream.tokenizer is not None
    assert golden_dream.tokenizer.decode(ids) == (
        "<|im_start|>user\nWhat is 2+3?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_empty_prompt_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"p\.txt holds no prompts"):
        _draw(tmp_path / "out", prompts=PromptFile(tmp_path / "p.txt"))


def test_a_missing_prompt_file_and_a_wrong_field_are_refused(
    tmp_path: Path, golden_dream: TransformerBase
) -> None:
    with pytest.raises(DataError, match="does not open"):
        PromptFile(tmp_path / "p.txt").ids(golden_dream)
    (tmp_path / "p.jsonl").write_text('{"question": "?"}\n')
    with pytest.raises(DataError, match=r"record 1.*prompt"):
        PromptFile(tmp_path / "p.jsonl").ids(golden_dream)
    with pytest.raises(ConfigError, match="no column 'prompt'"):
        FromDataset("json", column="prompt", data_files=str(tmp_path / "p.jsonl")).ids(golden_dream)


def test_a_prompt_beyond_the_models_limit_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    (tmp_path / "p.txt").write_text("x" * 3000)
    with pytest.raises(ConfigError, match="2048 columns"):
        _draw(tmp_path / "out", prompts=PromptFile(tmp_path / "p.txt"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"prompts": Unconditional(11)}, "num_examples"),
        ({"draw": Draw(temperature=0.5)}, "policy"),
        ({"max_new_tokens": 7}, "max_new_tokens"),
    ],
)
def test_a_folder_of_other_trajectories_is_left_alone(
    tmp_path: Path, settings: dict, named: str
) -> None:
    store = _draw(tmp_path)
    before = hashlib.sha256(store.path(0).read_bytes()).digest()
    with pytest.raises(MismatchError, match=named):
        _draw(tmp_path, **settings)
    assert hashlib.sha256(store.path(0).read_bytes()).digest() == before


def test_a_half_written_shard_is_named(tmp_path: Path) -> None:
    store = _draw(tmp_path)
    whole = store.path(1).read_bytes()
    store.path(1).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"shard-00001\.parquet is damaged"):
        store.read()


def test_missing_shards_are_counted(tmp_path: Path) -> None:
    store = _draw(tmp_path)
    store.path(2).unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 3 shards.*shard-00002"):
        store.read()


def test_a_folder_without_a_manifest_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder of trajectories"):
        TrajectoryStore.open(tmp_path)


def test_trajectories_of_another_base_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="was drawn from"):
        _draw(tmp_path).check(Dream.random())


def test_rows_that_stop_at_the_end_of_their_text_have_the_same_texts_for_fewer_forwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(CHECKPOINTS / "tiny-dream")
    rows = []
    predict = TransformerBase.predict

    def counting(self: TransformerBase, canvas: Canvas, *rest, **settings) -> Prediction:
        rows.append(len(canvas.tokens))
        return predict(self, canvas, *rest, **settings)

    monkeypatch.setattr(TransformerBase, "predict", counting)

    def drawn(folder: str, early: EndOfText | None) -> tuple[list[str], int]:
        rows.clear()
        store = generate(
            base.name,
            tmp_path / folder,
            Questions(8),
            max_new_tokens=24,
            block_length=8,
            early=early,
            device="cpu",
        )
        return [base.decode(t.response.tolist()) for t in store.trajectories()], sum(rows)

    texts, forwards = drawn("exact", None)
    assert forwards == 8 * 24
    same, fewer = drawn("stopped", EndOfText())
    assert same == texts
    assert fewer < forwards
    with pytest.raises(MismatchError, match="policy"):
        drawn("exact", EndOfText())
