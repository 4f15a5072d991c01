"""Muon for matrices, AdamW for everything else, behind one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from dlmjoint.errors import ConfigError
from dlmjoint.pretrain.muon import Muon


class MuonAdamW(torch.optim.Optimizer):
    """Muon on the two-dimensional parameters and AdamW on the others.

    Muon takes matrices only, Lightning and its schedulers want a single optimizer: this one owns
    both and shares their parameter groups (a scheduler scales both rates) and their state, which is
    saved as any optimizer's. It needs matrices that are still matrices: raises ConfigError where a
    strategy has flattened them.
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
        matrices = [p for p in everything if p.ndim == 2]
        others = [p for p in everything if p.ndim != 2]
        if not matrices:
            raise _flattened()
        self._muon = Muon(matrices, lr=muon_lr, weight_decay=weight_decay)
        self._parts: list[torch.optim.Optimizer] = [self._muon]
        if others:
            betas = (0.9, 0.98)
            self._parts.append(
                torch.optim.AdamW(others, lr=lr, betas=betas, weight_decay=weight_decay)
            )
        super().__init__(everything, {"lr": lr})
        self.param_groups = [group for part in self._parts for group in part.param_groups]
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimizer's own groups and state."""
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if any(p.ndim != 2 for group in self._muon.param_groups for p in group["params"]):
            raise _flattened()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Groups and state of both."""
        super().load_state_dict(state_dict)
        self._share()


def _flattened() -> ConfigError:
    return ConfigError(
        "MuonAdamW needs matrices, and this strategy has cut the weights into flat shards: choose "
        "torch.optim.AdamW, or a strategy that keeps them whole (ddp) or keeps their shape "
        "(ModelParallelStrategy)"
    )
