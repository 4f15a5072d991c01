"""Functions compiled once per shape: CUDA graphs on a GPU, fused loops on a CPU."""

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from dlmjoint.clock import Stopwatch
from dlmjoint.errors import ConfigError

log = logging.getLogger(__name__)

SHAPES = 64
"""Shapes a function may be compiled for; torch's own limit is meant for shapes that nobody planned."""


class Captured:
    """A function of tensors, compiled for every shape it meets.

    A shape is met for the first time once: that call takes seconds to minutes, is announced, and its
    time is not the decoding's.
    """

    def __init__(self, function: Callable[..., Tensor], what: str, device: torch.device) -> None:
        check_compiler(device)
        torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
        self.what, self.device = what, device
        mode = "reduce-overhead" if device.type == "cuda" else None
        self._compiled = torch.compile(function, mode=mode, dynamic=False, fullgraph=True)
        self._met: set[tuple[tuple[int, ...] | None, ...]] = set()

    def __call__(self, *arguments: Any) -> Tensor:
        """The function's result. On a GPU it is a copy: the graph writes over its own at its next run."""
        leaves = tree_leaves(arguments)
        shape = tuple(tuple(one.shape) if isinstance(one, Tensor) else None for one in leaves)
        if shape in self._met:
            return self._run(arguments)
        log.info("compiling %s of %s, once", self.what, " x ".join(map(str, leaves[0].shape)))
        self._met.add(shape)
        with Stopwatch.left_out(self.device):
            if self.device.type == "cuda":  # a graph is recorded in the second run
                self._run(arguments)
            return self._run(arguments)

    def _run(self, arguments: tuple[Any, ...]) -> Tensor:
        found = self._compiled(*arguments)
        return found.clone() if self.device.type == "cuda" else found


def check_compiler(device: torch.device) -> None:
    """Raise ConfigError where there is nothing to compile with."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise ConfigError("compile needs the triton package on a GPU: pip install triton")
        return
    from torch._inductor import cpp_builder, exc  # importing it takes a second

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise ConfigError(
            "compile needs a C++ compiler on a CPU: install g++, or name one in the variable CXX"
        ) from error
