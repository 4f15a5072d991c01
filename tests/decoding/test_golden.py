"""Token for token: ADJUST's greedy decodes, and Dream's own schedule and orders."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from dlmjoint.decoding.caches.freecache import FreeCache
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early_rules.prophet import Columns, Prophet, Staged
from dlmjoint.decoding.order import HighProbability, LowEntropy, Margin, Order
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.decoding.schedule import DreamSchedule, LladaSchedule
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from tests.conftest import GOLDEN

STOCK = load_file(GOLDEN / "dream" / "expected.safetensors")
LLADA = load_file(GOLDEN / "llada" / "expected.safetensors")
PROPHET = json.loads((GOLDEN / "llada" / "prophet.json").read_text())
FREECACHE = load_file(GOLDEN / "dream" / "freecache_expected.safetensors")
ADJUST = load_file(GOLDEN / "adjust" / "expected.safetensors")
WEIGHTS = load_file(GOLDEN / "adjust" / "reference_sampler.safetensors")
NOISE = Noise(0, (0,))


def _greedy(policy: Policy, base: TransformerBase, forbid: tuple[int, ...]) -> Policy:
    """Prepared, but forbidding exactly what the original forbids, not ids beyond the tokenizer."""
    return replace(policy.prepare(base), draw=Draw(temperature=0, forbid=forbid))


@pytest.mark.parametrize(("commits", "forwards"), [(1, 14), (2, 7), (4, 4), (8, 2)])
def test_the_method_equals_adjust_commit_by_commit(
    golden_dream: TransformerBase, commits: int, forwards: int
) -> None:
    sampler = JointSampler.from_adjust(golden_dream, WEIGHTS).eval()
    policy = _greedy(Policy(commits, refine=Joint(sampler)), golden_dream, (golden_dream.mask_id,))
    canvas = golden_dream.canvas(ADJUST["prompt"].tolist(), 14)
    history = []
    steps = list(decode(golden_dream, canvas, policy, NOISE))
    for step in steps:
        for commit in step.commits:
            if bool(commit.written.any()):
                canvas = canvas.write(commit)
                history.append(canvas.tokens[0])
    assert torch.equal(torch.stack(history), ADJUST[f"greedy_history_K{commits}"])
    assert len(steps) == forwards


@pytest.mark.parametrize(
    ("name", "order", "steps"),
    [
        ("entropy_steps4", LowEntropy(), 4),
        ("maskgit_steps8", HighProbability(), 8),
        ("margin_steps8", Margin(), 8),
    ],
)
def test_dreams_own_schedule_reproduces_the_stock_decodes(
    golden_dream: TransformerBase, name: str, order: Order, steps: int
) -> None:
    policy = _greedy(Policy(DreamSchedule(steps), order=order), golden_dream, ())
    canvas = golden_dream.canvas(STOCK["prompt"].tolist(), 16)
    found = [step.canvas.tokens for step in decode(golden_dream, canvas, policy, NOISE)]
    assert torch.equal(torch.stack(found), STOCK[name])


@pytest.mark.parametrize(
    ("name", "steps", "block"),
    [("low_confidence_steps16_block16", 16, 16), ("low_confidence_steps8_block8", 8, 8)],
)
def test_lladas_schedule_reproduces_the_stock_decodes(
    golden_llada: TransformerBase, name: str, steps: int, block: int
) -> None:
    schedule = LladaSchedule(steps, blocks=16 // block)
    policy = Policy(schedule, order=HighProbability(), block_length=block)
    policy = _greedy(policy, golden_llada, ())
    canvas = golden_llada.canvas(LLADA["prompt"].tolist(), 16)
    steps_made = list(decode(golden_llada, canvas, policy, NOISE))
    assert torch.equal(steps_made[-1].canvas.tokens, LLADA[name])
    assert len(steps_made) == steps


@pytest.mark.parametrize("name", sorted(PROPHET["runs"]))
def test_prophet_reproduces_the_released_decodes_and_exit_steps(
    golden_llada: TransformerBase, name: str
) -> None:
    run = PROPHET["runs"][name]
    levels = run["thresholds"] or {"early": 7.5, "mid": 5.0, "late": 2.5}
    prophet = Prophet(
        Staged(levels["early"], levels["mid"], levels["late"]),
        Columns(PROPHET["answer_start_offset"], PROPHET["answer_length"]),
        planned=PROPHET["steps"],
    )
    policy = Policy(
        LladaSchedule(16, blocks=2), order=HighProbability(), block_length=8, early=prophet
    )
    canvas = golden_llada.canvas(LLADA["prompt"].tolist(), 16)
    steps = list(decode(golden_llada, canvas, _greedy(policy, golden_llada, ()), NOISE))
    assert torch.equal(steps[-1].canvas.tokens, LLADA[f"prophet_{name}"])
    assert len(steps) == run["actual_steps"]


@pytest.mark.parametrize(("block", "steps"), [(8, 16), (4, 16), (8, 8)])
def test_freecache_as_published_reproduces_its_decodes(
    golden_dream: TransformerBase, block: int, steps: int
) -> None:
    policy = Policy(
        DreamSchedule(steps, blocks=16 // block),
        order=HighProbability(),
        cache=FreeCache(block, delayed=False),
    )
    canvas = golden_dream.canvas(FREECACHE["prompt"].tolist(), 16)
    made = list(decode(golden_dream, canvas, _greedy(policy, golden_dream, ()), NOISE))
    assert torch.equal(made[-1].canvas.tokens, FREECACHE[f"block{block}_steps{steps}"])


def test_the_delayed_cache_recomputes_every_finished_block_once_more(
    golden_dream: TransformerBase,
) -> None:
    columns = []
    for delayed in (True, False):
        policy = Policy(order=HighProbability(), cache=FreeCache(4, delayed=delayed))
        policy = _greedy(policy, golden_dream, ())
        canvas = golden_dream.canvas(FREECACHE["prompt"].tolist(), 16)
        steps = list(decode(golden_dream, canvas, policy, NOISE))
        columns.append(sum(int(step.columns.sum()) for step in steps))
    # 12 prompt columns, blocks of 4, one token per forward: three blocks are recomputed once more.
    assert columns[0] - columns[1] == 3 * 4


def test_lladas_schedule_gives_larger_counts_first() -> None:
    left, counts = torch.tensor([10]), []
    for forward in range(4):
        counts.append(int(LladaSchedule(8, blocks=2).commits(forward, left, left + 10, left)))
        left = left - counts[-1]
    assert counts == [3, 3, 2, 2]


def test_dreams_schedule_has_its_odd_ends() -> None:
    masked, counts = torch.tensor([127]), []
    for forward in range(127):
        counts.append(int(DreamSchedule(127).commits(forward, masked, masked, masked)))
        masked = masked - counts[-1]
    assert counts == [0] + [1] * 125 + [2]
