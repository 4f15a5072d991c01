"""Training: pairs per second, ours against the paper's recipe."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from dlmjoint.bench.full_size import lengths_held
from dlmjoint.bench.measure import against, host_growth, measure
from dlmjoint.bench.stand_ins.base import folder_of
from dlmjoint.bench.stand_ins.paper import paper_loss
from dlmjoint.bench.stand_ins.trajectories import random_manifest, random_trajectories
from dlmjoint.bench.suite import TINY, TINY_DEEP, Setting, Suite
from dlmjoint.costs import arithmetic
from dlmjoint.distill.data import Windows
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.pairs import AllDepths, OneDepth, Pairs, Plan
from dlmjoint.distill.starts import WholeWindows
from dlmjoint.distill.unrolling.unroll import UnrollBatch
from dlmjoint.models.load import Loading

WINDOW = 9
"""States per window: a start and its eight successors, as in the rows of ADJUST's training set."""
DEPTHS = (3, 7)
"""Deepest unrolls: K = 4, which the paper's scripts train, and K = 8, as far as its settings go."""
STEPS, PAPER_STEPS = 2, 16
"""Training steps per measurement; the paper's, of one depth each, must show their mixture."""
EXAMPLES = 64
WIDER = 17
"""States of a window twice as long: a base forward serves more pairs still, and memory grows."""


@dataclass(frozen=True)
class Recipe:
    """A way to train on as many windows."""

    pairs: Pairs = field(default_factory=AllDepths)
    window: int = WINDOW
    online: bool = False
    """The base's hidden states are there already."""
    rendered: bool = False
    """As the paper's code has it, not as this project's preset."""


PAPER = OneDepth(skip_padding=False)
PRESET, RENDERED, OURS, LONGER, ONLINE = (
    "the paper's recipe",
    "the paper's recipe, logits everywhere",
    "ours",
    "ours, longer windows",
    "ours, online",
)
RECIPES = {
    PRESET: Recipe(PAPER),
    RENDERED: Recipe(PAPER, rendered=True),
    OURS: Recipe(),
    LONGER: Recipe(window=WIDER),
    ONLINE: Recipe(online=True),
}


class Fit(Suite):
    """Training steps of both recipes with the same base and layer on as many windows, in turn.

    A pair is one (start state, target state) whose cells enter the loss. The paper's recipe is run as
    the preset of this project, which spares its logits of written columns, and as its code has it.
    Online, the base's forwards are not counted: they have been made to draw the trajectories.
    """

    name = "fit"
    on_cpu = (TINY, TINY_DEEP)

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """A record per model, length, batch size and depth."""
        for model in setting.models:
            folder = folder_of(model, setting, note)
            # On a CPU memory is measured apart, and before this process holds the model as well.
            note(f"{model}: memory of a training step")
            on_cpu = torch.device(setting.device).type == "cpu"
            memory = _memory(folder, setting) if on_cpu else {}
            module = _module(folder, setting)
            for length, asked in lengths_held(setting.lengths, module.base.max_length).items():
                for batch_size, depth in product(setting.batch_sizes, DEPTHS):
                    note(f"{model}: fit, batch {batch_size}, length {length}, depth {depth}")
                    record = Bench(module, length, batch_size, depth).record(setting.repeats)
                    for name, told in record["measured"].items():
                        extra = memory.get((asked[0], batch_size, depth, name))
                        told |= {} if extra is None else {"extra_bytes": extra}
                    yield {"model": model, "point": "fit", **record}


def _module(folder: Path, setting: Setting) -> Distillation:
    """The base on its device, and a layer to train beside it."""
    loading = Loading(device_map=setting.device)
    module = Distillation(str(folder), dtype=setting.dtype, depth=max(DEPTHS), loading=loading)
    return module.to(setting.device)


def _memory(folder: Path, setting: Setting) -> dict[tuple[int, int, int, str], int | None]:
    """Host memory that a step of each recipe takes, by length asked, batch size, depth and recipe."""
    points = product(setting.lengths, setting.batch_sizes, DEPTHS, RECIPES)
    return {
        (length, batch_size, depth, called(name, depth)): host_growth(
            _alone, folder, setting, length, batch_size, depth, name
        )
        for length, batch_size, depth, name in points
    }


def _alone(
    folder: Path, setting: Setting, length: int, batch_size: int, depth: int, name: str
) -> Callable[[], int]:
    """One step of a recipe, the deepest it draws, after one on a single window: the optimizer's
    state is held before, as in all steps but the first."""
    disable_progress_bar()  # a process of its own has its own settings
    module = _module(folder, setting)
    length = min(length, module.base.max_length)
    Bench(module, length, 1, depth).deepest(name)()
    return Bench(module, length, batch_size, depth).deepest(name)


def called(name: str, depth: int) -> str:
    """A recipe's name in the table."""
    return f"{name}, depth {depth}"


class Bench:
    """Recipes side by side on windows of one length, at one batch size and depth."""

    def __init__(self, module: Distillation, length: int, batch_size: int, depth: int) -> None:
        self.module, self.length = module, length
        self.batch_size, self.depth = batch_size, depth
        self.device = module.base.device
        self.weights = (1.0,) * depth
        self.optimizer = torch.optim.AdamW(module.sampler.parameters(), lr=1e-5)
        responses = EXAMPLES, length - 1
        trajectories = random_trajectories(module.base, *responses)
        manifest = random_manifest(module.base, *responses)
        self.windows = {
            width: Windows(
                [trajectories],
                manifest,
                batch_size=batch_size,
                window=width,
                seed=0,
                starts=WholeWindows(until_padding=False),
            )
            for width in {self.width(name) for name in RECIPES}
        }

    def record(self, repeats: int) -> dict[str, Any]:
        """What was measured, and what counting says."""
        batches = {name: self.batches(name) for name in RECIPES}
        steps = {name: partial(self.steps, name, some) for name, some in batches.items()}
        found = measure(steps, repeats, self.device)
        work = {name: self.work(name, some) for name, some in batches.items()}
        ideals = {name: work[PRESET]["flops"] / one["flops"] for name, one in work.items()}
        told = against(found, PRESET, "pairs", ideals)
        return {
            "length": self.length,
            "batch_size": self.batch_size,
            "depth": self.depth,
            "windows": {name: self.width(name) for name in RECIPES},
            "measured": {
                called(name, self.depth): {**one, "work_per_pair": work[name]}
                for name, one in told.items()
            },
        }

    def deepest(self, name: str) -> Callable[[], int]:
        """One step of a recipe, at its greatest depth."""
        deepest = max(self.batches(name), key=lambda b: self.plan(name, b).passes(self.width(name)))
        return partial(self.steps, name, [deepest])

    def batches(self, name: str) -> list[UnrollBatch]:
        """A recipe's batches, on their device."""
        if RECIPES[name].pairs == PAPER:
            return [batch.to(self.device) for batch in self._mixture()]
        batches = [
            self.windows[self.width(name)][number].to(self.device) for number in range(STEPS)
        ]
        return [self._heard(batch) for batch in batches] if RECIPES[name].online else batches

    def width(self, name: str) -> int:
        """States of a recipe's windows: as many as it asks for, or the response has before its last
        token."""
        return min(RECIPES[name].window, self.length - 2)

    def _mixture(self) -> list[UnrollBatch]:
        """Batches whose depths come as often as the paper's recipe draws them: few steps drawn freely
        would be too deep or too shallow by chance."""
        powers = torch.tensor([PAPER.decay**k for k in range(self.depth)], dtype=torch.float64)
        places = (torch.arange(PAPER_STEPS, dtype=torch.float64) + 0.5) / PAPER_STEPS
        wanted = Counter((torch.searchsorted(powers.softmax(0).cumsum(0), places) + 1).tolist())
        chosen, windows = list[UnrollBatch](), self.windows[self.width(PRESET)]
        for number in count():
            drawn = len(self.plan(PRESET, batch := windows[number]).weights)
            if wanted[drawn]:
                wanted[drawn] -= 1
                chosen.append(batch)
            if not wanted.total():
                break
        return chosen

    def _heard(self, batch: UnrollBatch) -> UnrollBatch:
        """The batch with hidden states that the base need not compute: any, no time depends on them."""
        base = self.module.base
        shape = (*batch.states.shape, base.hidden_size)
        return replace(batch, hidden=torch.randn(shape, dtype=base.dtype, device=self.device))

    def plan(self, name: str, batch: UnrollBatch) -> Plan:
        """What a recipe makes of a batch."""
        return RECIPES[name].pairs.plan(self.weights, batch)

    def steps(self, name: str, batches: list[UnrollBatch]) -> int:
        """Training steps, mixed precision where training has it; how many pairs."""
        module, base = self.module, self.module.base
        recipe = RECIPES[name]
        module.pairs, module.depth_weights = recipe.pairs, list(self.weights)
        mixed = self.device.type == "cuda" and base.dtype == torch.bfloat16
        for batch in batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
                if recipe.rendered:
                    depth = len(self.plan(name, batch).weights)
                    loss = paper_loss(base, module.sampler, batch, depth)
                else:
                    _, loss, _ = module.losses(batch)
            self.optimizer.zero_grad()
            loss.mean().backward()
            torch.nn.utils.clip_grad_norm_(module.sampler.parameters(), 1.0)
            self.optimizer.step()
        return self.batch_size * sum(self.plan(name, b).pairs(self.width(name)) for b in batches)

    def work(self, name: str, batches: list[UnrollBatch]) -> dict[str, float]:
        """What a pair costs: base forwards, sampler passes, columns through the head - forwards, and
        backwards, which cost as much again - and FLOPs. A pass with its backward costs three."""
        pairs = forwards = passes = head = backward = 0.0
        width, rendered = self.width(name), RECIPES[name].rendered
        for batch in batches:
            plan = self.plan(name, batch)
            here, made = plan.pairs(width), plan.passes(width)
            targets = min(plan.starts + len(plan.weights) - 1, width - 1) if plan.starts > 1 else 1
            masked = float(batch.masked.sum()) / (len(batch.states) * width)
            pairs, passes = pairs + here, passes + made
            forwards += len(plan.states) * (batch.hidden is None)
            head += self.length * (2 + made) if rendered else masked * (targets + here)
            backward += self.length if rendered else masked * here
        size = arithmetic.measure(type(self.module.base), self.module.base.config)
        flops = forwards * arithmetic.forward_flops(size, self.length, self.length, 0)
        flops += passes * 3 * arithmetic.pass_flops(size, self.length, self.length, 0)
        flops += (head + backward) * 2 * size.head
        work = {"base_forwards": forwards, "sampler_passes": passes, "flops": flops}
        work |= {"head_columns": head, "head_columns_backward": backward}
        return {key: value / pairs for key, value in work.items()}
