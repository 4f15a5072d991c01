"""Training: pairs per second, ours against the paper's recipe."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from dlmjoint import arithmetic
from dlmjoint.bench.fit_step import random_trajectories
from dlmjoint.bench.measure import against, measure
from dlmjoint.bench.paper import paper_loss
from dlmjoint.bench.random_base import folder_of
from dlmjoint.bench.suite import Setting, Suite
from dlmjoint.distill.data import Windows
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.pairs import AllDepths, OneDepth, Pairs, Plan
from dlmjoint.distill.unroll import UnrollBatch
from dlmjoint.trajectories.store import TrajectoryStore

WINDOW = 8
"""States per window."""
DEPTHS = (3, 7)
"""Deepest unrolls: K = 4, which the paper's scripts train, and K = 8, as far as its settings go."""
STEPS = 4
"""Training steps per measurement: the paper's recipe draws a depth for each."""
EXAMPLES = 64
PRESET, RENDERED, OURS, ONLINE = (
    "the paper's recipe",
    "the paper's recipe, logits everywhere",
    "ours",
    "ours, online",
)


class Fit(Suite):
    """Training steps on the same windows: both recipes with the same base and layer, in turn.

    A pair is one (start state, target state) whose cells enter the loss. The paper's recipe is run as
    the preset of this project, which spares its logits of written columns, and as its code has it.
    Online, the exact forwards are not counted: they have been made to draw the trajectories.
    """

    name = "fit"

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """A record per model, batch size and depth."""
        for model in setting.models:
            folder = folder_of(model, setting, note)
            module = Distillation(str(folder), dtype=setting.dtype, depth=max(DEPTHS))
            device = torch.device(setting.device)
            nn.Module.to(module.base.network, device)
            module.to(device)
            length = min(*setting.lengths, module.base.max_length)
            store = random_trajectories(
                module.base, setting.workdir / "pairs", EXAMPLES, length - 1
            )
            for batch_size in setting.batch_sizes:
                for depth in DEPTHS:
                    note(f"{model}: fit, batch {batch_size}, length {length}, depth {depth}")
                    record = Bench(module, store, batch_size, depth, device).record(setting)
                    yield {"model": model, "length": length, **record}


@dataclass(frozen=True)
class Bench:
    """Recipes side by side at one batch size and depth."""

    module: Distillation
    store: TrajectoryStore
    batch_size: int
    depth: int
    device: torch.device

    def record(self, setting: Setting) -> dict[str, Any]:
        """What was measured and what counting says."""
        batches = [batch.to(self.device) for batch in islice(self._windows(), STEPS)]
        plans = {
            PRESET: [OneDepth(skip_padding=False).plan(self._weights, b) for b in batches],
            OURS: [AllDepths().plan(self._weights, b) for b in batches],
        }
        with torch.no_grad():
            heard = [replace(b, hidden=self._hidden(b)) for b in batches]
        optimizer = torch.optim.AdamW(self.module.sampler.parameters(), lr=1e-5)
        steps = {
            PRESET: lambda: self._ours(OneDepth(skip_padding=False), batches, optimizer),
            RENDERED: lambda: self._papers(plans[PRESET], batches, optimizer),
            OURS: lambda: self._ours(AllDepths(), batches, optimizer),
            ONLINE: lambda: self._ours(AllDepths(), heard, optimizer),
        }
        # As `fit` trains: mixed precision beside a bfloat16 base.
        mixed = self.device.type == "cuda" and setting.dtype == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            found = measure(steps, setting.repeats, self.device)
        flops = {name: self._flops(plans[name], batches) for name in plans}
        flops[ONLINE] = self._flops(plans[OURS], batches, base=False)
        ideals = {name: flops[PRESET] / flops[name] for name in (OURS, ONLINE)}
        return {
            "point": "fit",
            "batch_size": self.batch_size,
            "depth": self.depth,
            "window": WINDOW,
            "pairs": {name: _pairs(plan) * self.batch_size for name, plan in plans.items()},
            "measured": {
                f"{name}, depth {self.depth}": told
                for name, told in against(found, PRESET, "pairs", ideals).items()
            },
        }

    @property
    def _weights(self) -> tuple[float, ...]:
        return (1.0,) * self.depth

    def _windows(self) -> Iterator[UnrollBatch]:
        windows = Windows(
            [self.store.trajectories()],
            self.store.manifest,
            batch_size=self.batch_size,
            window=WINDOW,
            seed=0,
        )
        return (windows[number] for number in range(STEPS))

    def _hidden(self, batch: UnrollBatch) -> Tensor:
        hidden = self.module.base.predict(batch.canvas()).hidden
        return hidden.unflatten(0, batch.states.shape[:2])

    def _ours(self, pairs: Pairs, batches: list[UnrollBatch], optimizer: Any) -> int:
        """Steps of `Distillation` with these pairs; how many pairs."""
        self.module.pairs = pairs
        self.module.depth_weights = list(self._weights)
        for batch in batches:
            _, loss, _ = self.module.losses(batch)
            _step(loss, optimizer)
        return _pairs([pairs.plan(self._weights, b) for b in batches]) * self.batch_size

    def _papers(self, plans: list[Plan], batches: list[UnrollBatch], optimizer: Any) -> int:
        """Steps of the plain rendering, at the depths the preset draws."""
        base, sampler = self.module.base, self.module.sampler
        for plan, batch in zip(plans, batches, strict=True):
            _step(paper_loss(base, sampler, batch, len(plan.weights)), optimizer)
        return _pairs(plans) * self.batch_size

    def _flops(self, plans: list[Plan], batches: list[UnrollBatch], base: bool = True) -> float:
        """FLOPs per pair: base forwards, passes forwards and backwards, the head where it is needed."""
        size = arithmetic.measure(type(self.module.base), self.module.base.config)
        length = batches[0].states.shape[2]
        total = 0.0
        for plan, batch in zip(plans, batches, strict=True):
            masked = float(batch.masked.sum()) / batch.masked[..., 0].numel()
            width = batch.states.shape[1]
            if base:
                total += arithmetic.forward_flops(size, len(plan.states) * length, length, 0)
            targets = min(plan.starts + len(plan.weights) - 1, width - 1) if plan.starts > 1 else 1
            total += 2 * size.head * masked * targets
            total += 3 * arithmetic.pass_flops(size, plan.passes(width) * length, length, 0)
            total += 2 * (2 * size.head * masked) * plan.pairs(width)
        return total / _pairs(plans)


def _pairs(plans: list[Plan]) -> int:
    """Pairs per row of all batches."""
    return sum(plan.pairs(WINDOW) for plan in plans)


def _step(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Backward and update."""
    optimizer.zero_grad()
    loss.mean().backward()
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
