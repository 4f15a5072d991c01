"""Muon for matrices, AdamW for everything else, behind one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class MuonAdamW(torch.optim.Optimizer):
    """torch's Muon on the two-dimensional parameters and AdamW on the others.

    Muon takes matrices only, Lightning and its schedulers want a single optimizer: this one owns
    both, shares their parameter groups (a scheduler scales both rates) and saves both states.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        muon_lr: float = 1e-2,
        weight_decay: float = 0.0,
    ) -> None:
        """
        Args:
            params: parameters of any shape.
            lr: AdamW's rate.
            muon_lr: Muon's rate, the spectral size of one update.
            weight_decay: of both, times each one's rate.
        """
        everything = list(params)
        self._parts: list[torch.optim.Optimizer] = []
        matrices = [p for p in everything if p.ndim == 2]
        others = [p for p in everything if p.ndim != 2]
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=weight_decay))
        if others:
            self._parts.append(
                torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
            )
        super().__init__(everything, {"lr": lr})
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both states, in order."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Both states."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
