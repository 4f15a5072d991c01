"""Clock, memory and ratios: how every suite measures."""

import gc
import multiprocessing
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from dlmjoint.clock import clock

Made = TypeVar("Made")

PROCESS = Path("/proc/self")
"""Where Linux tells what memory a process holds, and lets it forget its peak."""


@dataclass(frozen=True)
class Measured:
    """One thing done several times."""

    seconds: list[float]
    """One per repeat."""
    count: int
    """What was made each time: tokens, forwards, steps."""
    peak_bytes: int | None
    """Most device memory allocated; None on a CPU, which does not say."""
    extra_bytes: int | None = None
    """Of these, what was not allocated before."""

    @property
    def rates(self) -> list[float]:
        """What was made per second, one per repeat."""
        return [self.count / seconds for seconds in self.seconds]

    def ratios(self, other: "Measured") -> list[float]:
        """Its rate over another's of the same repeat."""
        return [mine / its for mine, its in zip(self.rates, other.rates, strict=True)]

    def to_json(self, unit: str) -> dict[str, Any]:
        """Median and range of rate and time; `unit` names what is counted."""
        return {
            "unit": unit,
            "per_second": spread(self.rates),
            "seconds": spread(self.seconds),
            "count": self.count,
            "peak_bytes": self.peak_bytes,
        }


def against(
    found: Mapping[str, Measured | None],
    baseline: str,
    unit: str,
    ideals: Mapping[str, float | Sequence[float]],
) -> dict[str, dict[str, Any]]:
    """What was measured as JSON, each with its ratio to the baseline's rate in the same repeat,
    the ratio that counting alone would give - one for all repeats, or one for each - and the share
    of that reached."""
    told: dict[str, dict[str, Any]] = {}
    base = found[baseline]
    for name, one in found.items():
        if one is None:
            told[name] = {"out_of_memory": True}
            continue
        told[name] = one.to_json(unit) | {"extra_bytes": one.extra_bytes}
        if base is None or name == baseline:
            continue
        ratios = one.ratios(base)
        told[name]["ratio"] = spread(ratios)
        if name in ideals:
            ideal = ideals[name]
            each = [ideal] * len(ratios) if isinstance(ideal, float | int) else ideal
            told[name]["ideal_ratio"] = spread(each)
            told[name]["share_of_ideal"] = spread(
                [ratio / most for ratio, most in zip(ratios, each, strict=True)]
            )
    return told


def measure(
    things: Mapping[str, Callable[[], int]], repeats: int, device: torch.device
) -> dict[str, Measured | None]:
    """Do every thing once unmeasured, then all of them in turn, `repeats` times: what slows the
    machine for a while slows them alike. Each returns the number of what it made.

    None stands for a thing the device's memory did not hold; the others go on without it.
    """
    counts = {name: within_memory(thing) for name, thing in things.items()}
    seconds: dict[str, list[float]] = {name: [] for name in things}
    peaks: dict[str, int | None] = dict.fromkeys(things)
    extra: dict[str, int | None] = dict.fromkeys(things)
    for _ in range(repeats):
        for name, thing in things.items():
            if counts[name] is None:
                continue
            restart_device_peak(device)
            held, started = device_peak_bytes(device), clock(device)
            counts[name] = within_memory(thing)
            seconds[name].append(clock(device) - started)
            peak = device_peak_bytes(device)
            peaks[name] = _larger(peaks[name], peak)
            if peak is not None and held is not None:
                extra[name] = _larger(extra[name], peak - held)
    return {
        name: None if count is None else Measured(seconds[name], count, peaks[name], extra[name])
        for name, count in counts.items()
    }


def within_memory(thing: Callable[[], Made]) -> Made | None:
    """What `thing` returns; None if the device's memory did not hold it. Other errors are raised."""
    try:
        return thing()
    except torch.cuda.OutOfMemoryError:
        pass  # until this block is left, the error's frames hold what has to go
    free_memory()
    return None


def free_memory() -> None:
    """Give what nobody holds any more back to the device."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where there is no GPU


def restart_device_peak(device: torch.device) -> None:
    """Count the device's peak from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_peak_bytes(device: torch.device) -> int | None:
    """Most device memory allocated since the last restart; None on a CPU, which does not say."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def restart_host_peak() -> int | None:
    """Count the host's peak from here on: the bytes held now, None where the system does not let a
    process do so. Without it, whatever was larger before would hide what comes."""
    try:
        (PROCESS / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return host_peak_bytes()


def host_peak_bytes() -> int:
    """Most host memory held since the last restart, mapped pages of files included (Linux)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) * 1024


def host_growth(make: Callable[..., Callable[[], object]], *arguments: object) -> int | None:
    """Most host memory that a thing takes beyond what is held once it is made; None where the system
    does not say.

    In a process of its own: here, memory that something else has freed would be taken unseen.
    """
    if not (PROCESS / "clear_refs").exists():
        return None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dlmjoint.bench.command"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_growth, torch.get_num_threads(), make, *arguments).result()


def _growth(
    threads: int, make: Callable[..., Callable[[], object]], *arguments: object
) -> int | None:
    torch.set_num_threads(threads)
    thing = make(*arguments)
    free_memory()
    before = restart_host_peak()
    thing()
    return None if before is None else host_peak_bytes() - before


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": median(values), "low": min(values), "high": max(values)}


def _larger(one: int | None, other: int | None) -> int | None:
    return max((size for size in (one, other) if size is not None), default=None)
