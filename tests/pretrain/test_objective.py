"""What masked diffusion hides."""

import torch

from dlmjoint.models.dream import Dream
from dlmjoint.pretrain.objective import MaskedDiffusion

TOKENS = torch.zeros(400, 24, dtype=torch.long)
PROMPTS = torch.full((400,), 7)


def hidden(prompted: float = 0.0, from_left: float = 0.0, holed: float = 0.0) -> torch.Tensor:
    """The cells hidden in a batch."""
    torch.manual_seed(0)
    return MaskedDiffusion(Dream.random(), prompted, from_left, holed).hide(TOKENS, PROMPTS)


def test_every_noise_level_is_as_frequent_as_any_other_and_the_opening_is_never_hidden() -> None:
    cells = hidden()
    assert not cells[:, 0].any()
    shares = cells[:, 1:].float().mean(-1)
    counts = torch.histc(shares, bins=4, min=0, max=1)
    assert (counts / len(cells) - 0.25).abs().max() < 0.06


def test_a_prompted_row_keeps_its_question() -> None:
    assert not hidden(prompted=1.0)[:, :7].any()


def test_a_row_masked_from_the_left_has_its_end_alone() -> None:
    cells = hidden(from_left=1.0)[:, 1:]
    assert (cells.long().diff(dim=1) <= 0).all()
    assert cells[:, 0].all()


def test_a_holed_row_is_masked_in_one_run_of_columns() -> None:
    cells = hidden(holed=1.0).long()
    assert ((cells.diff(dim=1) == 1).sum(-1) == 1).all()
    assert (cells.sum(-1) < 24 // 3).all()


def test_rows_without_holes_are_drawn_as_if_there_were_no_holes() -> None:
    some = hidden(holed=0.5)
    assert 0.2 < (some == hidden()).all(-1).float().mean() < 0.8
