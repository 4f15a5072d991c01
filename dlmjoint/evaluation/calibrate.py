"""Thresholds from recorded exact trajectories: when Prophet may stop, what a token costs a budget."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.early_rules.prophet import Prophet, Staged, mean_gap
from dlmjoint.decoding.guides.verified import Verified
from dlmjoint.decoding.order import entropy
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.turn import Turn
from dlmjoint.distill.losses import forward_kl
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.metrics.intervals import share
from dlmjoint.evaluation.records import Score
from dlmjoint.evaluation.running import generations
from dlmjoint.evaluation.tasks.base import Task
from dlmjoint.models.base import Base
from dlmjoint.random import Noise
from dlmjoint.trajectories.states import BATCH, cells, turns, write_recorded
from dlmjoint.trajectories.store import TrajectoryStore
from dlmjoint.types import Trajectory

VERIFIED = 64
"""Trajectories whose prompts are decoded to see which drafts stay."""
LEVELS = 32
"""Thresholds tried per stage: quantiles of the gaps seen in it, and infinity."""


@dataclass(frozen=True)
class Replay:
    """What would have happened had each row been filled at each step."""

    gaps: Float[np.ndarray, "n S"]
    """Mean top-2 gap of the answer region, logits."""
    flips: Bool[np.ndarray, "n S"]
    """Whether the filled answer differs from the trajectory's own."""


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and what they did on trajectories they were not chosen on."""

    threshold: Staged
    flip_rate: Score
    """Share of answers that would have changed."""
    forwards_saved: float
    """Share of base forwards not made."""


def read_recorded(path: Path, most: int) -> list[Trajectory]:
    """Trajectories of a store's folder or of an evaluation's generations file, at most so many.

    Raises DataError if it is neither, or empty.
    """
    if path.is_dir():
        found = TrajectoryStore.open(path).trajectories()
    elif path.suffix == ".jsonl" and path.exists():
        found = [generation.trajectory() for generation in generations.read(path)]
    else:
        raise DataError(f"{path} is neither a folder of trajectories nor a generations file")
    if len(found) < 2:
        raise DataError(f"{path} holds {len(found)} trajectories, too few to calibrate on")
    return found[:most]


@torch.inference_mode()
def replay(
    base: Base,
    trajectories: list[Trajectory],
    prophet: Prophet,
    policy: Policy,
    answer: Callable[[Trajectory], object],
) -> Replay:
    """Gaps and flips at every step of every trajectory, one base forward per step.

    The gap is of the rule's region, a row is filled as the rule would fill it, by the sampler of
    `policy` (prepared) if it needs one. `answer` reads a finished trajectory; an answer that cannot
    be read counts as one of its own.
    """
    gaps, flips = [], []
    for start in range(0, len(trajectories), BATCH):
        part = trajectories[start : start + BATCH]
        final = [answer(trajectory) for trajectory in part]
        for turn in turns(base, part, policy):
            region = prophet.region.cells(turn.canvas)
            gaps.append(mean_gap(turn, region).cpu().numpy())
            prophet.fill(turn, turn.canvas.masked.any(-1), region)
            filled = turn.canvas.tokens[:, turn.canvas.response].cpu()
            read = [answer(replace(t, response=r)) for t, r in zip(part, filled, strict=True)]
            flips.append(np.array([a != b for a, b in zip(read, final, strict=True)]))
    steps = len(trajectories[0].order)
    return Replay(_rows_by_steps(gaps, steps), _rows_by_steps(flips, steps))


def _rows_by_steps(found: list[np.ndarray], steps: int) -> np.ndarray:
    batches = [np.stack(found[i : i + steps], axis=1) for i in range(0, len(found), steps)]
    return np.concatenate(batches)


def choose(replayed: Replay, flip_rate: float) -> Calibration:
    """The staged thresholds that save most forwards while at most `flip_rate` of the answers change.

    Chosen on every second trajectory, measured on the others. Raises ConfigError for a rate that is
    no share.
    """
    if not 0 <= flip_rate < 1:
        raise ConfigError(f"flip_rate is {flip_rate}, expected 0 or more and below 1")
    chosen, held_out = (
        Replay(replayed.gaps[first::2], replayed.flips[first::2]) for first in (0, 1)
    )
    stages = _stages(replayed.gaps.shape[1])
    levels = [
        np.append(np.quantile(chosen.gaps[:, stage], np.linspace(0, 1, LEVELS - 1)), np.inf)
        for stage in stages
    ]
    best, fewest = (np.inf, np.inf, np.inf), np.inf
    firsts = [
        [_first(chosen.gaps, stage, level) for level in levels[i]] for i, stage in enumerate(stages)
    ]
    for picked in product(range(LEVELS), repeat=3):
        exits = np.minimum.reduce([firsts[i][p] for i, p in enumerate(picked)])
        if _flipped(chosen, exits).mean() <= flip_rate and exits.mean() < fewest:
            best, fewest = tuple(levels[i][p] for i, p in enumerate(picked)), exits.mean()
    threshold = Staged(*(float(level) for level in best))
    exits = exit_steps(held_out, threshold)
    # The forward in which a row is filled is made: exit at step s costs s + 1 of S forwards.
    forwards = np.minimum(exits + 1, replayed.gaps.shape[1])
    return Calibration(
        threshold,
        share(_flipped(held_out, exits).tolist()),
        1 - float(forwards.mean()) / replayed.gaps.shape[1],
    )


def exit_steps(replayed: Replay, threshold: Staged) -> np.ndarray:
    """The step at which each row would have been filled; the number of steps if never."""
    stages = _stages(replayed.gaps.shape[1])
    levels = (threshold.high, threshold.mid, threshold.low)
    return np.minimum.reduce(
        [_first(replayed.gaps, stage, level) for stage, level in zip(stages, levels, strict=True)]
    )


def _stages(steps: int) -> list[np.ndarray]:
    """The steps in which each of the three thresholds applies."""
    progress, default = np.arange(steps) / steps, Staged()
    first, second = progress < default.first, progress < default.second
    return [np.flatnonzero(mask) for mask in (first, ~first & second, ~second)]


def _first(gaps: np.ndarray, stage: np.ndarray, level: float) -> np.ndarray:
    reached = gaps[:, stage] >= level
    return np.where(reached.any(1), stage[reached.argmax(1)], gaps.shape[1])


def _flipped(replayed: Replay, exits: np.ndarray) -> np.ndarray:
    rows, steps = np.arange(len(exits)), replayed.flips.shape[1]
    return np.where(exits < steps, replayed.flips[rows, np.minimum(exits, steps - 1)], False)


def answer_of(base: Base, task: Task | None) -> Callable[[Trajectory], object]:
    """How an answer is read: what the task extracts, or, without a task, the text itself.

    Raises ConfigError if the task does not grade.
    """
    if task is None:
        return lambda trajectory: base.decode(trajectory.response.tolist(), trajectory.anchored)
    examples = {example.id: example for example in task.examples()}

    def read(trajectory: Trajectory) -> object:
        text = base.decode(trajectory.response.tolist(), trajectory.anchored)
        grade = task.grade(examples[trajectory.example_id], text)
        if grade is None:
            raise ConfigError(f"task {task.name} has no answers to compare")
        return (text,) if grade.extracted is None else grade.extracted

    return read


@torch.inference_mode()
def price_per_nat(
    base: Base, policy: Policy, trajectories: list[Trajectory], depth: int, stride: int = 3
) -> list[float]:
    """For depth 1, 2, ...: KL(exact conditional || decoder) over the decoder's entropy, both summed
    over next tokens of exact trajectories, started at every `stride`-th state. See `Budget`.
    """
    kls, entropies = np.zeros(depth), np.zeros(depth)
    for first in range(0, len(trajectories), BATCH):
        part = trajectories[first : first + BATCH]
        for start, turn in enumerate(turns(base, part, policy)):
            if start % stride:
                continue
            for j in range(1, min(depth, len(part[0].order) - 1 - start) + 1):
                write_recorded(turn, part, start + j - 1)
                exact, drawn = _next_token(base, turn, part, start + j)
                kls[j - 1] += float(forward_kl(exact, drawn).sum())
                entropies[j - 1] += float(entropy(drawn).sum())
    if not (entropies > 0).all():
        raise DataError("the trajectories are shorter than the depth, or the decoder is certain")
    return (kls / entropies).tolist()


@torch.inference_mode()
def acceptance(
    base: Base,
    policy: Policy,
    trajectories: list[Trajectory],
    depth: int,
    order: str,
    seed: int = 0,
) -> list[float]:
    """For depth 1, 2, ...: the share of a decoder's drafts that stay where all before them did, in rounds
    of verified decoding after the trajectories' prompts. See `BestDrafts`."""
    drafting = replace(policy, commits_per_forward=depth + 1, guide=Verified(order))
    kept, made = np.zeros(depth), np.zeros(depth)
    for first in range(0, len(trajectories), BATCH):
        part = trajectories[first : first + BATCH]
        canvas = base.canvas([t.prompt.tolist() for t in part], len(part[0].response))
        noise = Noise(seed, tuple(t.example_id for t in part))
        for step in decode(base, canvas, drafting, noise):
            if step.refused is None:
                continue
            stayed = step.commits[-1].written.sum(-1).cpu()[:, None]
            drafted = stayed + step.refused.written.sum(-1).cpu()[:, None]
            number = torch.arange(1, depth + 1)
            made += ((number <= stayed) & (number < drafted)).sum(0).numpy()
            kept += (number < stayed).sum(0).numpy()
    if not (made > 0).all():
        raise DataError("no round has come to the last depth: take less, or more trajectories")
    return (kept / made).tolist()


def _next_token(
    base: Base, turn: Turn, part: list[Trajectory], step: int
) -> tuple[Float[Tensor, "B V"], Float[Tensor, "B V"]]:
    """Log-probabilities of the recorded next column: exact, and as the decoder has them."""
    rows, columns = cells(turn, part, step)
    hidden = base.predict(turn.canvas).hidden[rows, columns]
    return turn.draw.log_probs(base.unembed(hidden)), turn.log_probs(rows, columns)
