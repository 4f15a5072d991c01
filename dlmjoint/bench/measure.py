"""Clock, memory and ratios: how every suite measures."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from dlmjoint.decoding.tally import clock


@dataclass(frozen=True)
class Measured:
    """One thing done several times."""

    seconds: list[float]
    """One per repeat."""
    count: int
    """What was made each time: tokens, forwards, steps."""
    peak_bytes: int | None
    """Most device memory allocated; None on a CPU, which does not say."""

    def to_json(self, against: "Measured | None" = None) -> dict[str, object]:
        """Median and range of the rate and, repeat by repeat, of its ratio to another's."""
        rates = [self.count / seconds for seconds in self.seconds]
        found: dict[str, object] = {
            "per_second": _spread(rates),
            "seconds": _spread(self.seconds),
            "count": self.count,
            "peak_bytes": self.peak_bytes,
        }
        if against is not None:
            others = [against.count / seconds for seconds in against.seconds]
            found["ratio"] = _spread([a / b for a, b in zip(rates, others, strict=True)])
        return found


def measure(
    things: Mapping[str, Callable[[], int]], repeats: int, device: torch.device
) -> dict[str, Measured]:
    """Do every thing once unmeasured, then all of them in turn, `repeats` times: what slows the
    machine for a while slows them alike. Each returns the number of what it made.
    """
    counts = {name: thing() for name, thing in things.items()}
    seconds: dict[str, list[float]] = {name: [] for name in things}
    peaks: dict[str, int | None] = dict.fromkeys(things)
    for _ in range(repeats):
        for name, thing in things.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            started = clock(device)
            counts[name] = thing()
            seconds[name].append(clock(device) - started)
            if device.type == "cuda":
                peaks[name] = max(peaks[name] or 0, torch.cuda.max_memory_allocated(device))
    return {name: Measured(seconds[name], counts[name], peaks[name]) for name in things}


def host_peak_bytes() -> int:
    """The most host memory this process has held, its files' mapped pages included (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values)}
