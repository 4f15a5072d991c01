"""Functions compiled once per shape: CUDA graphs on a GPU, fused loops on a CPU."""

import importlib.util
import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from dlmjoint.clock import Stopwatch
from dlmjoint.errors import ConfigError

log = logging.getLogger(__name__)

T = TypeVar("T")

SHAPES = 64
"""Shapes a function may be compiled for; torch's own limit is meant for shapes that nobody planned."""


class Captured(Generic[T]):
    """A function of tensors, compiled for every shape it meets, or for any.

    A shape is met for the first time once: that call takes seconds to minutes, is announced, and its
    time is not the decoding's.
    """

    def __init__(
        self,
        function: Callable[..., T],
        what: str,
        device: torch.device,
        any_size: bool = False,
    ) -> None:
        """With `any_size` it is compiled for all sizes above one together, and no graph is recorded: for
        what is met in many shapes and is a few kernels."""
        check_compiler(device)
        torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
        self.what, self.device, self.any_size = what, device, any_size
        self._recorded = device.type == "cuda" and not any_size
        mode = "reduce-overhead" if self._recorded else None
        self._compiled = torch.compile(function, mode=mode, dynamic=any_size, fullgraph=True)
        self._met: set[tuple[tuple[int, ...] | None, ...]] = set()

    def __call__(self, *arguments: Any) -> T:
        """The function's result. Of a graph it is a copy: the graph writes over its own at its next run."""
        leaves = tree_leaves(arguments)
        shape = tuple(self._sizes(one) if isinstance(one, Tensor) else None for one in leaves)
        if shape in self._met:
            return self._run(arguments)
        told = ("n" if self.any_size and size > 1 else str(size) for size in leaves[0].shape)
        log.info("compiling %s of %s, once", self.what, " x ".join(told))
        self._met.add(shape)
        with Stopwatch.left_out(self.device):
            if self._recorded:  # in the second run
                self._run(arguments)
            return self._run(arguments)

    def _run(self, arguments: tuple[Any, ...]) -> T:
        found = self._compiled(*arguments)
        return tree_map(Tensor.clone, found) if self._recorded else found

    def _sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """What tells one compilation from another."""
        return (
            tuple(min(size, 2) for size in tensor.shape) if self.any_size else tuple(tensor.shape)
        )


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
