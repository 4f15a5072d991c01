"""`dlmjoint bench`: run a suite, show it, write it down."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dlmjoint.bench.suite import Setting, find_suite
from dlmjoint.errors import ConfigError
from dlmjoint.provenance import provenance, write_json

FULL_SIZE = ["dream-7b", "llada-8b"]
"""The published sizes that are taken where there is a GPU."""
TINY = "checkpoints/tiny-dream"


def bench(
    suite: str = "full-size",
    models: list[str] | None = None,
    batch_sizes: list[int] | None = None,
    lengths: list[int] | None = None,
    forwards: int = 8,
    repeats: int = 3,
    device: str | None = None,
    dtype: str | None = None,
    workdir: Path | None = None,
    output: Path | None = None,
) -> None:
    """Measure speed and memory side by side in one run.

    Args:
        suite: which measurements; `full-size` loads, decodes and trains.
        models: folders, hub ids, or `dream-7b` and `llada-8b`, which are written with random weights
            of that size; both on a GPU, the tiny base on a CPU by default.
        batch_sizes: rows decoded together; 1, 4 and 16 by default.
        lengths: canvas columns; 128 and 512 by default.
        forwards: base forwards measured per point, rather than whole responses.
        repeats: of every point, all decoders in turn; one more, unmeasured, comes first.
        device: `cuda` if there is one.
        dtype: of the base; bfloat16 on a GPU, float32 on a CPU.
        workdir: for random weights (16 GB per 7B base) and trajectories; a temporary folder.
        output: also write the records there as JSON, after every point.
    """
    on_gpu = device.startswith("cuda") if device else torch.cuda.is_available()
    chosen = find_suite(suite)
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        setting = Setting(
            models=models or (FULL_SIZE if on_gpu else [TINY]),
            batch_sizes=_positive("batch_sizes", batch_sizes or [1, 4, 16]),
            lengths=_positive("lengths", lengths or [128, 512]),
            forwards=_positive("forwards", [forwards])[0],
            repeats=_positive("repeats", [repeats])[0],
            device=device or ("cuda" if on_gpu else "cpu"),
            dtype=dtype or ("bfloat16" if on_gpu else "float32"),
            workdir=workdir or Path(temporary),
        )
        if not on_gpu:
            console.print("No GPU: this is not full size. Speeds and ratios are this CPU's.")
        records: list[dict[str, Any]] = []
        for record in chosen.run(setting, lambda text: console.print(f"[dim]{text}[/dim]")):
            records.append(record)
            if output is not None:
                made = provenance(
                    {"suite": suite, "device": setting.device, "dtype": setting.dtype}
                )
                write_json(output, {"suite": suite, "records": records, "provenance": made})
    console.print(table_of(records))


def table_of(records: list[dict[str, Any]]) -> Table:
    """One line per thing measured: median rate and range, ratio to exact, memory."""
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "batch", "length", "what", "per second", "to exact", "peak memory"):
        left = heading in ("model", "what")
        table.add_column(heading, justify="left" if left else "right", no_wrap=left)
    for record in records:
        where = [
            Path(record["model"]).name,
            str(record.get("batch_size", "")),
            str(record.get("length", "")),
        ]
        if record.get("out_of_memory"):
            table.add_row(*where, record["point"], "out of memory", "", "")
        if record["point"] == "load":
            speed = record["bytes"] / record["seconds"] / 1e9
            table.add_row(*where, "load", f"{speed:.2f} GB", "", _gigabytes(record["peak_bytes"]))
        for name, one in record.get("measured", {}).items():
            ratio = _range(one["ratio"]) if "ratio" in one else ""
            rate, peak = _range(one["per_second"]), _gigabytes(one["peak_bytes"])
            table.add_row(*where, name, rate, ratio, peak)
    return table


def _range(values: Mapping[str, float]) -> str:
    return f"{values['median']:.3g} ({values['low']:.3g}–{values['high']:.3g})"


def _gigabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e9:.2f} GB"


def _positive(name: str, values: list[int]) -> list[int]:
    if min(values) < 1:
        raise ConfigError(f"{name} is {values}, expected numbers of at least 1")
    return values
