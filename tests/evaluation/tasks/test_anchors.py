"""Anchored answers: what stands behind an anchor is read, wherever the reasoning before it ended."""

import json

import torch

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.tasks.gsm8k import GSM8K
from dlmjoint.sampling import generate
from dlmjoint.types import Trajectory


def _trajectory(response: list[int], order: list[int]) -> Trajectory:
    empty = torch.zeros(0, dtype=torch.long)
    log_probs = torch.zeros(len(order), dtype=torch.float64)
    return Trajectory(0, empty, torch.tensor(response), torch.tensor(order), log_probs)


def test_the_anchored_columns_end_with_the_last_anchor():
    assert _trajectory([5, 6, 7, 8], [0, 3]).anchored == 3
    assert _trajectory([5, 6, 7, 8], [3, 1, 2]).anchored == 1
    assert _trajectory([5, 6], [1, 0]).anchored == 0


def test_an_end_of_text_ends_the_text_only_behind_the_last_anchor(base):
    said, answer = base.encode("3+4=7."), base.encode(" 7")
    anchor = base.encode("####")
    ids = [*said, base.eos_id, base.eos_id, *anchor, *answer, base.eos_id, *said]
    assert base.decode(ids) == "3+4=7."
    behind = len(said) + 2 + len(anchor)
    assert base.decode(ids, behind) == "3+4=7.#### 7"


def test_an_evaluation_reads_the_anchored_answer_after_an_early_end(tmp_path, base, write):
    """The base is made to write nothing but end-of-text and one digit."""
    digit = base.encode("7")[0]
    only = Draw(
        forbid=tuple(set(range(base.vocab_size)) - {base.eos_id, digit} - set(base.forbidden_ids)),
    )
    anchor = base.encode("####")
    task = GSM8K(
        source=write([{"question": f"{n} + 4?", "answer": "#### 7"} for n in range(6)]),
        n=6,
        max_new_tokens=len(anchor) + 8,
        anchors={4: "####"},
        draw=only,
    )
    run(base, {"exact": Policy()}, [task], tmp_path / "run")
    lines = (tmp_path / "run/generations/exact/gsm8k.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert any(base.eos_id in one["tokens"][:4] for one in found), "some reasoning ended early"
    for one in found:
        assert "####" in one["text"]
        ended = base.eos_id in one["tokens"][4 + len(anchor) :]
        assert one["stop"] == ("eos" if ended else "length")
    prompts = [one["prompt"] for one in found]
    policy = Policy(draw=only)
    made = generate(base, prompts, policy, max_new_tokens=task.max_new_tokens, anchors=task.anchors)
    assert made.texts == [one["text"] for one in found]
