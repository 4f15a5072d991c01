"""How many tokens a forward writes, one by one or from one look: what happens between two forwards."""

import torch
from torch import Tensor

from dlmjoint.decoding.ahead import Ahead
from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.looks.sent import sent
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.schedule import Schedule
from dlmjoint.decoding.turn import Turn


def write_tokens(turn: Turn, policy: Policy, ahead: Ahead) -> None:
    """Write tokens in every unfinished row, in its order, for as long as its schedule allows.

    Marginals write from one look; a sampler renews the prediction after each token, and the look
    with it.
    """
    if not ahead.tokens:  # Dream's own schedule has forwards that write nothing
        return
    quota, candidates = ahead.quota, ahead.candidates
    if turn.commits:  # by an early rule
        quota, candidates = quota.minimum(turn.left.sum(-1)), candidates & turn.canvas.masked
    cells = turn.cells(candidates, ahead.seen)
    write = _as_allowed if policy.schedule.adaptive else _as_planned
    write(turn, policy, ahead, quota, cells)


def _as_planned(turn: Turn, policy: Policy, ahead: Ahead, quota: Tensor, cells: Cells) -> None:
    """The quota, known beforehand: the host asks nothing."""
    if not policy.refine.passes:
        chosen = turn.first(cells, min(ahead.tokens, cells.columns.shape[1]))
        turn.commit(chosen.opened(chosen.open & (_steps(chosen) < quota[:, None])))
        return
    going = (quota[:, None] > sent(tuple(range(ahead.tokens)), quota.device)).split(1, dim=-1)
    turn.commit(turn.first(cells.opened(cells.open & going[0]), 1))
    for depth in range(1, ahead.tokens):
        turn.improve()
        cells = turn.cells(turn.open() & going[depth], ahead.open[depth])
        turn.commit(turn.first(cells, 1), policy.refine.writer)
    refined = turn.commits[-ahead.tokens :][1:]
    if refined:  # each of these tokens took a pass
        turn.spend_passes(torch.cat([commit.written for commit in refined], dim=1).sum(-1))


def _as_allowed(turn: Turn, policy: Policy, ahead: Ahead, quota: Tensor, cells: Cells) -> None:
    """As long as the schedule allows what it sees. Whether any row goes on is asked once per look."""
    made, spent = torch.zeros_like(quota), torch.zeros_like(quota, dtype=torch.float64)
    going, rows, goes_on = quota > 0, None, True
    while True:
        some = cells.rows
        width = 1 if policy.refine.passes else min(ahead.tokens, cells.columns.shape[1])
        chosen = turn.first(cells, width)
        depth = made[some][:, None] + _steps(chosen)
        open_cells = chosen.open & going[some][:, None] & (depth < quota[some][:, None])
        allowed, total = _allowed(policy.schedule, depth, chosen.opened(open_cells), spent[some])
        chosen, number = chosen.opened(allowed), allowed.sum(-1)
        made = made.index_add(0, some, number)
        spent = spent.index_copy(0, some, total)
        on = torch.zeros_like(going).index_copy(0, some, (allowed == open_cells).all(-1))
        going = going & on & (made < quota)
        if not policy.refine.passes:
            # Few of the cells that were looked at are drawn, and seldom more follow.
            left = turn.left.sum(-1).index_add(0, some, -number)
            width, goes_on, more = torch.stack([number.max(), going.any(), left.max()]).tolist()
            turn.finished = turn.finished if more else len(left)
            if not width:  # a later look may allow nothing
                return
            chosen = chosen.at(_steps(chosen)[:width].expand(len(number), -1))
        turn.commit(chosen, policy.refine.writer if rows is not None else "base")
        if not goes_on:
            return
        opened = turn.open() & going[:, None]
        rows, most = turn.ask(opened.sum(-1))
        if not len(rows):
            return
        going = opened.any(-1)
        if policy.refine.passes:
            turn.improve(rows)
            turn.spend_passes(going)
        cells = turn.cells(opened, most, rows)


def _allowed(
    schedule: Schedule, depth: Tensor, cells: Cells, spent: Tensor
) -> tuple[Tensor, Tensor]:
    """The open cells up to the first that the schedule does not allow, and what each row has spent
    with them. The first token of a forward is written whatever the schedule says."""
    price = schedule.price(depth, cells) * cells.open
    before = spent[:, None] + price.cumsum(-1) - price
    fine = cells.open & (schedule.allows(depth, cells, before) | (depth == 0))
    allowed = fine.long().cumprod(-1).bool()
    return allowed, spent + (price * allowed).sum(-1)


def _steps(cells: Cells) -> Tensor:
    return torch.arange(cells.columns.shape[1], device=cells.columns.device)
