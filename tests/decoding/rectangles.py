"""Cells whose logits a test writes down itself."""

import torch
from torch import Tensor

from dlmjoint.decoding.looks.cells import Cells
from dlmjoint.decoding.looks.look import Look, look_at, raw_gap


def cells_of(logits: Tensor) -> Cells:
    """Open cells with these logits [B, M, V], from the response's first column on."""
    rows, width = logits.shape[:2]

    def read(at_rows: Tensor, columns: Tensor) -> Look:
        found = logits[at_rows, columns].float()
        return look_at(found.clone(), raw_gap(found))

    columns = torch.arange(width).expand(rows, -1)
    return Cells(torch.arange(rows), columns, torch.ones_like(columns, dtype=torch.bool), 0, read)
