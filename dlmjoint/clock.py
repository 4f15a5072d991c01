"""The clock, read here and nowhere else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds since it was made, but for what was `left_out`."""

    _left_out = 0.0

    def __init__(self, device: torch.device) -> None:
        self._device, self._apart = device, Stopwatch._left_out
        self._started = clock(device)

    @property
    def seconds(self) -> float:
        """Until now, after everything queued on the device is done."""
        apart = Stopwatch._left_out - self._apart
        return clock(self._device) - self._started - apart

    @classmethod
    @contextmanager
    def left_out(cls, device: torch.device) -> Iterator[None]:
        """What is done inside is no part of what is measured, such as compiling."""
        started = clock(device)
        yield
        cls._left_out += clock(device) - started


def clock(device: torch.device) -> float:
    """Seconds, after everything queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
