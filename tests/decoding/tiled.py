"""What a look and a draw find that are not made tile by tile."""

import torch
from torch import Tensor

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.looks.look import look_at
from dlmjoint.random import Noise

CELLS = 48


def looked_at(logits: Tensor) -> tuple[Tensor, ...]:
    """The numbers of a look."""
    look = look_at(logits.clone(), None)
    return look.best, look.others, look.second, look.spread


def drawn_whole(logits: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Tokens and log-probabilities, a row for every cell."""
    rows = torch.arange(len(logits))
    return Draw().write(logits.clone(), rows, torch.zeros_like(rows), noise)
