"""Training while generating: the exact decoding's own forwards are starts and targets.

A stored trajectory is drawn with one base forward per state, and trained on with one more whenever
a window of it is met. Here the first is all there is: W consecutive states of a decoding, with the
hidden states it has just computed, are a batch. (Ours; ADJUST stores trajectories and spends two
forwards on every pair.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.forward import Conditional
from dlmjoint.decoding.order import LowEntropy, Order
from dlmjoint.decoding.policy import Policy
from dlmjoint.distill.data import Fixed, Windows
from dlmjoint.distill.fit_data import FitData
from dlmjoint.distill.unrolling.unroll import UnrollBatch
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.random import Noise, derive_seed
from dlmjoint.trajectories.generate import manifest_of
from dlmjoint.trajectories.prompts import Prompts
from dlmjoint.trajectories.record import record
from dlmjoint.trajectories.store import Manifest, TrajectoryStore
from dlmjoint.types import Canvas, Prediction, Step, Trajectory


@dataclass(frozen=True)
class Heard(Conditional):
    """The base's own prediction, kept until the next one."""

    last: list[Tensor] = field(default_factory=list, compare=False, repr=False)

    def __call__(
        self, base: Base, canvas: Canvas, renew: Tensor, memory: CanvasMemory | None
    ) -> Prediction:
        """One forward."""
        prediction = super().__call__(base, canvas, renew, memory)
        self.last[:] = [prediction.hidden]
        return prediction


@dataclass(frozen=True)
class Lanes:
    """Groups of rows decoded side by side, each at another stage, so that a batch holds early and
    late states alike. Lane l decodes the examples (q lanes + l) rows .. + rows - 1 in its round q;
    everything depends on (seed, lane, round) alone, so a process can begin anywhere."""

    base: Base
    policy: Policy
    """Exact, prepared."""
    prompts: Sequence[list[int]]
    max_new_tokens: int
    window: int
    lanes: int
    rows: int
    seed: int
    store: TrajectoryStore | None = None
    """Where finished trajectories go, each prompt's first ones."""

    def of(self, lane: int, skip: int) -> Iterator[UnrollBatch]:
        """A lane's windows, without the first `skip`. Rounds that are skipped whole cost nothing."""
        skip += lane * len(self._bounds(lane, 0)) // self.lanes  # the stages of the lanes differ
        for turn in count():
            bounds = self._bounds(lane, turn)
            if skip >= len(bounds):
                skip -= len(bounds)
                continue
            # The first are computed all the same: the others go on from them.
            yield from islice(self._round(lane, turn, bounds), skip, None)
            skip = 0

    def _bounds(self, lane: int, turn: int) -> list[tuple[int, int]]:
        """First and last state of each window of a round. They share an end, so that each state
        costs one forward; where they begin is drawn, so that each state starts long and short
        unrolls alike."""
        step = self.window - 1
        generator = torch.Generator().manual_seed(derive_seed(self.seed, lane, turn, "bounds"))
        first = -int(torch.randint(step, (), generator=generator))
        last = self.max_new_tokens - 1
        return [(max(0, at), min(at + step, last)) for at in range(first, last, step)]

    def _round(self, lane: int, turn: int, bounds: list[tuple[int, int]]) -> Iterator[UnrollBatch]:
        """The windows of one round, each as soon as its last state has been predicted."""
        start = (turn * self.lanes + lane) * self.rows
        ids = range(start, start + self.rows)
        prompts = [self.prompts[i % len(self.prompts)] for i in ids]
        canvas = self.base.canvas(prompts, self.max_new_tokens)
        heard = Heard()
        decoding = decode(
            self.base, canvas, replace(self.policy, forward=heard), Noise(self.seed, tuple(ids))
        )
        ends = {last for _, last in bounds}
        states, hidden, steps = [canvas.tokens], list[Tensor](), list[Step]()
        for number, step in enumerate(decoding):
            steps.append(step)
            hidden.append(heard.last[0])
            if number in ends:
                yield self._window(canvas, states, hidden, lane, turn, number)
                states, hidden = states[-1:], hidden[-1:]  # the next window begins where this ends
            states.append(step.canvas.tokens)
        self._keep(canvas, steps, ids)

    def _window(
        self,
        canvas: Canvas,
        states: list[Int[Tensor, "B L"]],
        hidden: list[Float[Tensor, "B L D"]],
        lane: int,
        turn: int,
        number: int,
    ) -> UnrollBatch:
        """A window; one cut short by an end of the trajectory is filled up with written states,
        which have no masks and take no part in any loss."""
        missing = self.window - len(states)
        blank = canvas.tokens.masked_fill(canvas.masked, canvas.tokens[0, 0].item())
        return UnrollBatch(
            states=torch.stack(states + [blank] * missing, dim=1),
            attends=canvas.attends,
            final=None,
            response=canvas.response,
            mask_id=canvas.mask_id,
            seed=derive_seed(self.seed, lane, turn, number, "online"),
            places=tuple(range(lane * self.rows, (lane + 1) * self.rows)),
            hidden=torch.stack(hidden + [torch.zeros_like(hidden[0])] * missing, dim=1),
        )

    def _keep(self, canvas: Canvas, steps: list[Step], ids: range) -> None:
        """Write a round's trajectories, if they are a shard that is wanted and missing."""
        if self.store is None or ids.start >= self.store.manifest.num_examples:
            return
        shard = ids.start // self.rows
        if not self.store.path(shard).exists():
            wanted = self.store.manifest.shard_ids(shard)
            self.store.write(shard, record(canvas, steps, ids)[: len(wanted)])


def joined(parts: Sequence[UnrollBatch]) -> UnrollBatch:
    """One batch of several, prompts padded on the left to the longest."""
    width = max(part.states.shape[2] for part in parts)
    padded = [_padded(part, width - part.states.shape[2]) for part in parts]
    return replace(
        padded[0],
        states=torch.cat([part.states for part in padded]),
        attends=torch.cat([part.attends for part in padded]),
        hidden=torch.cat([part.hidden for part in padded if part.hidden is not None]),
        places=tuple(place for part in padded for place in part.places),
    )


def _padded(part: UnrollBatch, more: int) -> UnrollBatch:
    if not more:
        return part
    assert part.hidden is not None
    pad = torch.nn.functional.pad
    return replace(
        part,
        states=pad(part.states, (more, 0)),
        attends=pad(part.attends, (more, 0)),
        hidden=pad(part.hidden, (0, 0, more, 0)),
        response=slice(part.response.start + more, part.response.stop + more),
    )


class Online(IterableDataset[UnrollBatch]):
    """Batches from a given number on: the next window of each of this process's lanes."""

    def __init__(self, lanes: Lanes, start: int, rank: int, world_size: int) -> None:
        self.lanes, self.start, self.rank, self.world_size = lanes, start, rank, world_size

    def __iter__(self) -> Iterator[UnrollBatch]:
        mine = range(self.rank, self.lanes.lanes, self.world_size)
        running = [self.lanes.of(lane, self.start) for lane in mine]
        while True:
            yield joined([next(lane) for lane in running])


class OnlineData(FitData):
    """Windows of decodings that happen while training, each state predicted once.

    A resumed run continues with the batch after the last one trained on; it decodes the started
    trajectories again up to there. A loss that needs the tokens a trajectory ends in cannot be had.
    """

    runs_base: ClassVar[bool] = True

    def __init__(
        self,
        prompts: Prompts,
        max_new_tokens: int = 128,
        batch_size: int = 32,
        window: int = 6,
        lanes: int = 4,
        draw: Draw | None = None,
        order: Order | None = None,
        block_length: int | None = None,
        val_examples: int = 32,
        val_batches: int = 8,
        seed: int = 0,
        save: Path | None = None,
    ) -> None:
        """
        Args:
            prompts: what to continue, again and again; the last are held out for validation.
            max_new_tokens: response columns.
            batch_size: windows per batch, over all processes.
            window: consecutive states W per window; W - 1 is the deepest unroll.
            lanes: groups of rows at different stages of their trajectories; they are dealt to the
                processes.
            draw: temperature, top-p and further forbidden ids.
            order: which column comes next; the lowest entropy by default.
            block_length: draw in blocks of this many columns.
            val_examples: trajectories to validate on, drawn when the run begins.
            val_batches: validation batches.
            seed: of all draws.
            save: folder for the trajectories, as a by-product: each prompt's first, in the form and
                with the content `dlmjoint generate` gives them, which can draw what is missing.
        """
        super().__init__(batch_size, window, val_batches, seed)
        if lanes < 1 or batch_size % lanes:
            raise ConfigError(f"batch_size is {batch_size}, expected a multiple of lanes={lanes}")
        if window > max_new_tokens:
            raise ConfigError(f"window is {window}, but responses have {max_new_tokens} states")
        self.prompts, self.max_new_tokens, self.lanes = prompts, max_new_tokens, lanes
        self.policy = Policy(
            order=order or LowEntropy(), draw=draw or Draw(), block_length=block_length
        )
        self.val_examples, self.save = val_examples, save
        self.rows: list[list[int]] = []

    def setup(self, stage: str) -> None:
        """Read the prompts. Raises ConfigError if they are too long or too few."""
        if self.rows:
            return
        rows = self.prompts.ids(self._base)
        if len(rows) <= self.val_examples:
            raise ConfigError(f"{len(rows)} prompts, of which {self.val_examples} to validate on")
        self._base.canvas([max(rows, key=len)], self.max_new_tokens)
        self.rows, self.held_out = rows[: -self.val_examples], rows[-self.val_examples :]

    @property
    def _base(self) -> Base:
        assert self.trainer is not None
        return self.trainer.lightning_module.base  # pyright: ignore[reportReturnType]

    def check(self, base: Base) -> None:
        """The base itself draws. Raises ConfigError for one that writes block after block: the states
        of its windows would be of several blocks."""
        if base.attention.block_length is not None:
            raise ConfigError(
                f"{base.name} writes block after block: train on stored trajectories, "
                "TrajectoryData, whose windows are cut at its blocks"
            )

    def stream(self) -> dict[str, str]:
        """All that batch number t depends on but t."""
        names = ("batch_size", "window", "lanes", "max_new_tokens", "seed")
        chosen = {name: str(getattr(self, name)) for name in names}
        made = self._manifest(self.rows, self.seed)
        return {**chosen, "policy": made.policy, "prompts": made.prompts}

    def train_dataloader(self) -> DataLoader[UnrollBatch]:
        """The endless stream, from where a resumed run stopped. Raises ConfigError if the lanes
        cannot be dealt to the processes."""
        rank, world_size = self.processes
        if self.lanes % world_size:
            raise ConfigError(
                f"lanes is {self.lanes}, expected a multiple of the {world_size} processes"
            )
        store = None
        if self.save is not None:
            store = TrajectoryStore.create(self.save, self._manifest(self.rows, self.seed))
        lanes = Lanes(
            self._base,
            self.policy.prepare(self._base),
            self.rows,
            self.max_new_tokens,
            self.window,
            self.lanes,
            self.batch_size // self.lanes,
            self.seed,
            store,
        )
        return DataLoader(Online(lanes, self.first_batch, rank, world_size), batch_size=None)

    def val_dataloader(self) -> DataLoader[UnrollBatch]:
        """The same windows of held-out prompts every time."""
        rank, world_size = self.processes
        seed = derive_seed(self.seed, "val")
        windows = Windows(
            [self._drawn(seed)],
            self._manifest(self.held_out, seed),
            batch_size=self.batch_size,
            window=self.window,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        return DataLoader(Fixed(windows, self.val_batches), batch_size=None)

    def _drawn(self, seed: int) -> list[Trajectory]:
        """The trajectories to validate on, whole."""
        policy, found = self.policy.prepare(self._base), list[Trajectory]()
        for start in range(0, len(self.held_out), self.batch_size):
            prompts = self.held_out[start : start + self.batch_size]
            ids = range(start, start + len(prompts))
            canvas = self._base.canvas(prompts, self.max_new_tokens)
            found += record(
                canvas, decode(self._base, canvas, policy, Noise(seed, tuple(ids))), ids
            )
        return found

    def _manifest(self, rows: list[list[int]], seed: int) -> Manifest:
        """What a folder of these trajectories would say of itself."""
        shard_size = self.batch_size // self.lanes
        return manifest_of(self._base, self.policy, rows, self.max_new_tokens, shard_size, seed)
