"""The records of a run as one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

HEADINGS = (
    "model", "batch", "length", "what", "per second", "ms", "ratio", "ideal", "of ideal", "memory",
)  # fmt: skip
LEFT = ("model", "what")
"""Headings of words; the others are of numbers."""


def table_of(records: Sequence[Mapping[str, Any]]) -> Table:
    """One line per thing measured, medians with their range: what it makes per second, the ratio to
    the baseline of its group (the line without one), the ratio that counting gives, the share reached
    of it; milliseconds of what is done once at a time; memory, or size."""
    table = Table(box=None, pad_edge=False)
    for heading in HEADINGS:
        left = heading in LEFT
        table.add_column(heading, justify="left" if left else "right", no_wrap=left)
    for line in lines_of(records):
        table.add_row(*line)
    return table


def lines_of(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of the table."""
    lines = []
    for record in records:
        where = [Path(record["model"]).name, str(record.get("batch_size", "")), _length(record)]
        if record["point"] == "load" and "seconds" in record:
            lines.append([*where, *_load(record)])
        if record.get("out_of_memory"):
            lines.append([*where, record["point"], "out of memory", "", "", "", "", ""])
        lines += [[*where, *_thing(*item)] for item in record.get("measured", {}).items()]
    return lines


def _length(record: Mapping[str, Any]) -> str:
    """The columns measured and, where it was not them, what was asked for."""
    length = record.get("length")
    asked = record.get("lengths_asked", [length])
    if length is None or asked == [length]:
        return str(length or "")
    return f"{length} (asked {', '.join(map(str, asked))})"


def _load(record: Mapping[str, Any]) -> list[str]:
    speed = f"{record['bytes'] / record['seconds'] / 1e9:.3g} GB"
    host, device = record["host_bytes_above_before"], record["peak_bytes"]
    memory = f"{_bytes(device)} (host {_bytes(host)})"
    return ["load", speed, f"{record['seconds'] * 1e3:.3g}", "", "", "", memory]


def _thing(name: str, one: Mapping[str, Any]) -> list[str]:
    if one.get("out_of_memory"):
        return [name, "out of memory", "", "", "", "", ""]
    once = one.get("unit") == name
    return [
        name,
        _range(one["per_second"]) + f" {one['unit']}" if "per_second" in one and not once else "",
        _range(one["seconds"], 1e3) if once or one.get("unit") == "losses" else "",
        _range(one["ratio"]) if "ratio" in one else "",
        _digits(one["ideal_ratio"]["median"]) if "ideal_ratio" in one else "",
        _range(one["share_of_ideal"]) if "share_of_ideal" in one else "",
        _memory(one),
    ]


def _memory(one: Mapping[str, Any]) -> str:
    """Size, memory taken beyond what was held, or else the device's peak; where it was compared, the
    share of the baseline's."""
    sizes = (one.get(key) for key in ("bytes", "extra_bytes", "peak_bytes"))
    share = one.get("bytes_ratio")
    shown = _bytes(next((size for size in sizes if size is not None), None))
    return shown + (f" (1/{_digits(share)})" if share and share != 1 else "")


def _range(values: Mapping[str, float], scale: float = 1) -> str:
    median, low, high = (_digits(values[key] * scale) for key in ("median", "low", "high"))
    return f"{median} ({low}–{high})"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(size: float | None) -> str:
    if size is None:
        return "-"
    unit, scale = next(
        (u, s) for u, s in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1)) if size >= s or s == 1
    )
    return f"{size / scale:.3g} {unit}"
