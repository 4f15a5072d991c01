"""Verified decoding (ours): drafts stay as long as the base itself would have written them.

Noise belongs to (seed, example, column), so the base need not be compared with its drafter by odds: it
is asked at the state that a draft was made for, with the same noise, and picks the same token or not.
All states of a round are rows of one forward. What differs is replaced by the base's own token, which
is final; drafts behind it are lost. Every token is the base's, given everything written before it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlmjoint.decoding.ahead import Ahead, own_block, renewed
from dlmjoint.decoding.begin import begin_turn
from dlmjoint.decoding.guide import Gate, Guide, Known
from dlmjoint.decoding.looks.cells import Cells, columns_of
from dlmjoint.decoding.schedule import Steady
from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.parts.canvas_cache import Branches, CanvasMemory
from dlmjoint.types import Canvas, Commit, Prediction

if TYPE_CHECKING:
    from dlmjoint.decoding.policy import Policy


class Contract(ABC):
    """What is promised of the order in which verified tokens are written."""

    owes: bool
    """Whether the column of a refused draft must come next."""

    @abstractmethod
    def cells(self, turn: Turn, ahead: Ahead, drafted: Int[Tensor, "B 1"]) -> Cells:
        """The one cell of each state that the base writes, where `drafted` is the next draft's column."""


class SameOrder(Contract):
    """The column the base ranks first."""

    owes = False

    def cells(self, turn: Turn, ahead: Ahead, drafted: Int[Tensor, "B 1"]) -> Cells:
        """Of the open cells, the order's first."""
        return turn.first(turn.cells(ahead.candidates & turn.canvas.masked, ahead.seen), 1)


class DraftedOrder(Contract):
    """The draft's column, which was chosen before its noise was looked at; so it must be written even
    if the draft is refused: to come back later with the same noise would not be a draw."""

    owes = True

    def cells(self, turn: Turn, ahead: Ahead, drafted: Int[Tensor, "B 1"]) -> Cells:
        """That one; a state without a next draft has any."""
        return turn.one(drafted.clamp(min=turn.canvas.response.start))


CONTRACTS: dict[str, Contract] = {"exact": SameOrder(), "drafted": DraftedOrder()}


@dataclass(frozen=True)
class Verified(Guide):
    """Several tokens per forward, every one of them the base's own.

    A round is one forward of the base about as many canvases as there are drafts. `exact` writes what
    `Policy(1)` writes with the same seed: tokens, order and log-probabilities, id for id as far as the
    device computes a row alike in batches of any size. `drafted` leaves the order to the drafter, and
    every token is a draw from the base's conditional given all tokens before it: a sample of unmasking
    one by one in that order. With a cache both are what they say of decoding one by one under that
    cache; a round ends where the next forward would need keys of one in between.
    """

    order: str = "exact"
    """Whose column comes next: the base's, or the draft's."""

    def __post_init__(self) -> None:
        if self.order not in CONTRACTS:
            raise ConfigError(f"order is {self.order!r}, expected one of {', '.join(CONTRACTS)}")

    def begin(
        self, base: Base, canvas: Canvas, policy: "Policy", memory: CanvasMemory | None
    ) -> "Verifying":
        """A gate that has asked nothing yet."""
        return Verifying(base, policy, memory, CONTRACTS[self.order])


class Verifying(Gate):
    """One canvas being decoded in verified rounds."""

    def __init__(
        self, base: Base, policy: "Policy", memory: CanvasMemory | None, contract: Contract
    ) -> None:
        self.base, self.memory, self.contract = base, memory, contract
        self.policy = replace(policy, commits_per_forward=Steady(1))
        self.speaker = policy.forward.speaker(base)
        self.known: Known | None = None

    def keep(self, rows: Int[Tensor, " R"], count: int) -> None:
        """See `Gate.keep`."""
        self.known = None if self.known is None else self.known.take(rows)

    def check(self, turn: Turn) -> None:
        """See `Gate.check`: one forward about the states that the drafts lead to, in which the base
        says what it writes after each of them. The last state that was reached is known then."""
        number = torch.zeros_like(turn.passes) + turn.forward
        drafts = _lined_up(turn)
        states = States.of(turn, drafts, number, self.policy, self.memory)
        ahead = Ahead.of(self.speaker, states.canvas, self.policy, None, 0, None, states.renew)
        if not ahead.rows:  # rows are finished, or have had no drafts
            turn.settle(drafts, drafts.keep(drafts.written & False))
            self.known = Known(turn.told, number)
            return
        asked, rows, branches = self._ask(turn, states, ahead)
        ready = self.policy.early.ready(asked)
        following = drafts.columns.roll(-1, -1).flatten()[rows][:, None]
        own = asked.commit(self.contract.cells(asked, ahead.take(rows), following))
        same = (own.columns == following) & own.written & ~ready[:, None]
        same &= own.tokens == drafts.tokens.roll(-1, -1).flatten()[rows][:, None]
        right = states.over(rows, same[:, 0]) & states.checks
        accepted = drafts.written[:, 0].long() + right.long().cumprod(-1).sum(-1)
        log_probs = states.over(rows, own.log_probs[:, 0])
        told = torch.cat([drafts.log_probs[:, :1], log_probs[:, :-1]], -1)
        kept = torch.arange(states.count, device=rows.device) < accepted[:, None]
        turn.settle(
            replace(drafts.keep(kept), log_probs=told.to(drafts.log_probs.dtype)),
            drafts.keep(~kept),
        )
        self._go_on(turn, drafts, states, asked, rows, branches, accepted, number)

    def _ask(
        self, turn: Turn, states: "States", ahead: Ahead
    ) -> tuple[Turn, Int[Tensor, " R"], Branches | None]:
        """The forward about the states: as a turn of one token each, which states its rows are, and
        what it has computed of a memory."""
        rows = columns_of(states.canvas.masked.any(-1)[None], len(ahead.rows))[0]
        owner = rows.div(states.count, rounding_mode="floor")
        branches = None
        if self.memory is not None:
            branches = self.memory.branch(rows, states.count, len(turn.passes))
        asked = begin_turn(
            self.base,
            self.policy,
            states.canvas.select(rows),
            turn.noise.take([row // states.count for row in ahead.rows], owner),
            ahead.take(rows),
            states.number.flatten()[rows],
            branches,
        )
        turn.forwards = turn.forwards + states.needed.any(-1) * self.policy.forward.forwards
        turn.canvases = turn.canvases.index_add(0, owner, asked.canvases)
        turn.columns = turn.columns.index_add(0, owner, asked.columns)
        return asked, rows, branches

    def _go_on(
        self,
        turn: Turn,
        drafts: Commit,
        states: "States",
        asked: Turn,
        rows: Int[Tensor, " R"],
        branches: Branches | None,
        accepted: Int[Tensor, " B"],
        number: Int[Tensor, " B"],
    ) -> None:
        """From the state after every row's accepted drafts, where the base was asked about it: else the
        row is finished, or nothing was written in it."""
        steps = accepted.maximum(states.filled)
        last = (steps - 1).clamp(min=0)[:, None]
        place = states.over(rows, torch.arange(len(rows), device=rows.device))
        chosen = place.gather(1, last)[:, 0]
        was_asked = (states.needed.gather(1, last) & (steps > 0)[:, None])[:, 0]
        if branches is not None:
            assert self.memory is not None
            self.memory.adopt(branches, chosen, was_asked)
        hidden, fresh = asked.told.hidden[chosen], asked.told.fresh[chosen]
        # A growing memory holds more columns than it did.
        more = hidden.shape[1] - turn.told.hidden.shape[1]
        old = torch.nn.functional.pad(turn.told.hidden, (0, 0, 0, more))
        prediction = Prediction(
            torch.where(was_asked[:, None, None], hidden, old),
            torch.where(was_asked[:, None], fresh, turn.told.fresh),
        )
        owed = None
        if self.contract.owes:
            refused = accepted < drafts.written.sum(-1)
            column = drafts.columns.gather(1, accepted.clamp(max=states.count - 1)[:, None])[:, 0]
            owed = torch.where(refused, column, -1)
        self.known = Known(prediction, number + steps, owed)


@dataclass(frozen=True)
class States:
    """What a round's drafts lead to: state s of a row is its canvas with the first s + 1 of them. A row
    without any in which an early rule has filled a block has one state."""

    canvas: Canvas
    """B times S rows; those that are not needed are finished."""
    count: int
    """S."""
    number: Int[Tensor, "B S"]
    """The forward of decoding token by token that is about the state."""
    needed: Bool[Tensor, "B S"]
    """Whether the base must be asked about it."""
    checks: Bool[Tensor, "B S"]
    """Whether what it says there decides on a draft."""
    filled: Int[Tensor, " B"]
    """1 where that is so."""
    renew: Bool[Tensor, "BS L"] | None
    """What a forward about it renews, where there is a memory."""

    @classmethod
    def of(
        cls,
        turn: Turn,
        drafts: Commit,
        number: Int[Tensor, " B"],
        policy: "Policy",
        memory: CanvasMemory | None,
    ) -> "States":
        """The states of a turn whose forward has the given number in every row."""
        before, after, count = turn.before, turn.canvas, drafts.columns.shape[1]
        steps = torch.arange(1, count + 1, device=number.device)
        step = torch.where(drafts.written, steps, count + 1)
        written = torch.full_like(before.tokens, count + 1)
        written = written.scatter_reduce(1, drafts.columns, step, "amin")
        there = written[:, None] <= steps[:, None]
        tokens = torch.where(there, after.tokens[:, None], before.tokens[:, None])
        masked = before.masked[:, None] & ~there
        unfinished = masked.any(-1)
        number = number[:, None] + steps
        renew, sound = None, torch.ones_like(unfinished)
        if memory is not None:
            canvases = [replace(before, tokens=tokens[:, place]) for place in range(count)]
            renew, sound = _under_memory(turn, canvases, number, policy, memory)
        made = drafts.written.sum(-1)
        filled = ((before.tokens != turn.asked.tokens).any(-1) & (made == 0)).long()
        exists = steps <= made.maximum(filled)[:, None]
        reached = exists & (sound | ~unfinished).long().cumprod(-1).bool()
        needed = reached & unfinished
        checks = needed & torch.nn.functional.pad(reached[:, 1:], (0, 1))
        # A row without masks is a finished one, whatever stands where they were.
        tokens = tokens.masked_fill(masked & ~needed[..., None], turn.base.eos_id)
        owners = torch.arange(len(tokens), device=tokens.device).repeat_interleave(count)
        canvas = replace(before.select(owners), tokens=tokens.flatten(0, 1))
        return cls(canvas, count, number, needed, checks, filled, renew)

    def over(self, rows: Int[Tensor, " R"], values: Tensor) -> Tensor:
        """A value of some states in a table of all, [B, S]."""
        table = values.new_zeros(len(self.canvas.tokens))
        return table.index_copy(0, rows, values).view(-1, self.count)


def _under_memory(
    turn: Turn,
    canvases: list[Canvas],
    number: Int[Tensor, "B S"],
    policy: "Policy",
    memory: CanvasMemory,
) -> tuple[Bool[Tensor, "BS L"], Bool[Tensor, "B S"]]:
    """What each state's forward renews if the states' forwards are made one after the other, and
    whether they can be made at once: nothing that one renews is left by a later one as it is."""
    base, (first, *_) = turn.base, canvases
    assert memory.clean is not None
    seen, clean = CanvasMemory(memory.growing), memory.clean[: len(first.tokens)]
    grid = policy.grid(base)
    computed, renew, sound = torch.zeros_like(first.attends), [], []
    for place, canvas in enumerate(canvases):
        seen.clean = clean
        cells = renewed(canvas, policy, seen, number[:, place], own_block(grid, canvas))
        renew.append(cells)
        cells = base.fed(cells)
        sound.append(~(computed & ~cells).any(-1))
        computed = computed | cells
        clean = torch.where(cells, ~base.attention.unsettled(canvas), clean)
    return torch.stack(renew, 1).flatten(0, 1), torch.stack(sound, 1)


def _lined_up(turn: Turn) -> Commit:
    """The drafts with every row's own in front, in their order; at least one place for them. Where
    there is none stands column 0, which is never written: not one that another draft has."""
    drafts = turn.drafts
    if drafts is None:
        none = torch.zeros_like(turn.canvas.tokens[:, :1])
        return Commit(none, none, torch.zeros_like(none, dtype=torch.float32), none.bool())
    front = columns_of(drafts.written, drafts.written.shape[1])
    return Commit(
        torch.where(drafts.written, drafts.columns, 0).gather(1, front),
        drafts.tokens.gather(1, front),
        drafts.log_probs.gather(1, front),
        drafts.written.gather(1, front),
    )
