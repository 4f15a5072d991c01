"""`dlmjoint bench`: run a suite, show it, write it down."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement

from dlmjoint.bench.stand_ins.base import config_of, is_random, published_names
from dlmjoint.bench.suite import Setting, Suite, find_suite
from dlmjoint.disk.provenance import provenance, write_json
from dlmjoint.errors import ConfigError
from dlmjoint.signals import ending_on_request


def bench(
    suite: str = "all",
    models: list[str] | None = None,
    batch_sizes: list[int] | None = None,
    lengths: list[int] | None = None,
    forwards: int = 8,
    repeats: int = 3,
    device: str | None = None,
    dtype: str | None = None,
    workdir: Path | None = None,
    output: Path | None = None,
    minutes: float = 8,
) -> None:
    """Measure speed and memory side by side in one run.

    Args:
        suite: `all` compares with the paper's way: `fit`, `kl`, `decode`, `generate` and `storage`,
            each a suite of its own too; `full-size` loads, decodes and trains; `counts` counts what
            decoders ask of a device, without a clock; `gpu` measures all that a GPU must show, plain
            and compiled, in a given time.
        models: folders, hub ids, or `dream-7b` and `llada-8b`, which are written with random weights
            of that size, `dream-7b:2` with its first two layers, `FOLDER:28` with 28 layers of the
            kind of that folder's; by default both on a GPU (Dream alone for comparisons), the tiny
            base on a CPU, to compare also with as many layers as Dream has.
        batch_sizes: rows decoded, or windows trained on, together; 16 by default, for `full-size` 1,
            4 and 16.
        lengths: canvas columns, cut to what a model holds; 128 by default, for `full-size` also 512.
        forwards: base forwards measured per point, rather than whole responses.
        repeats: of every point, all decoders in turn, and training steps per batch size; one more,
            unmeasured, comes first.
        device: `cuda` if there is one.
        dtype: of the base; bfloat16 on a GPU, float32 on a CPU.
        workdir: where a temporary folder is made for random weights (16 GB per 7B base in bfloat16)
            and trajectories; the system's own place by default.
        output: also write the records there as JSON, after every point.
        minutes: after which the suite `gpu` begins nothing more.
    """
    on_gpu = device.startswith("cuda") if device else torch.cuda.is_available()
    if on_gpu and not torch.cuda.is_available():
        raise ConfigError(f"device is {device}, but there is no CUDA device; leave it out")
    if workdir is not None and not workdir.is_dir():
        raise ConfigError(f"workdir {workdir} is no folder")
    chosen = find_suite(suite)
    # A folder of its own: whatever is in the workdir stays as it is.
    with ending_on_request(), tempfile.TemporaryDirectory(dir=workdir) as temporary:
        setting = Setting(
            models=_known(models or list(chosen.full_size if on_gpu else chosen.on_cpu)),
            batch_sizes=_at_least(
                "batch_sizes", list(chosen.batch_sizes) if batch_sizes is None else batch_sizes
            ),
            lengths=_at_least("lengths", list(chosen.lengths) if lengths is None else lengths, 2),
            forwards=_at_least("forwards", [forwards])[0],
            repeats=_at_least("repeats", [repeats])[0],
            device=device or ("cuda" if on_gpu else "cpu"),
            dtype=dtype or ("bfloat16" if on_gpu else "float32"),
            workdir=Path(temporary),
            minutes=minutes,
        )
        _run(chosen, setting, output)


def _run(suite: Suite, setting: Setting, output: Path | None) -> None:
    """Show what a suite measures, and keep it after every point."""
    console, records = Console(), list[dict[str, Any]]()
    if not setting.device.startswith("cuda"):
        console.print(_without_gpu(setting))
    asked = {key: value for key, value in asdict(setting).items() if key != "workdir"}
    made = provenance({"suite": suite.name, **asked})
    for record in suite.run(setting, lambda text: console.print(f"[dim]{escape(text)}[/dim]")):
        records.append(record)
        if output is not None:
            write_json(output, {"suite": suite.name, "records": records, "provenance": made})
    table = suite.table(records)
    # A table cut to a narrow or unknown width would lose its numbers.
    width = Measurement.get(console, console.options.update(width=10_000), table).maximum
    Console(width=max(width, console.width)).print(table)


def _without_gpu(setting: Setting) -> str:
    """What a run that is not on a GPU is not."""
    speeds = f"Not on a GPU ({setting.device}): speeds and ratios are this machine's."
    if set(setting.models) <= set(published_names()):
        return speeds
    return f"{speeds} This is not full size: the models are {', '.join(setting.models)}."


def _known(models: list[str]) -> list[str]:
    """The models, if each may be one; a hub id has an owner and a name."""
    for model in models:
        if is_random(model):
            config_of(model)
        elif "/" not in model and not Path(model).is_dir():
            raise ConfigError(
                f"there is no model {model!r}: give a folder, a hub id (owner/name) or one of "
                f"{published_names()}"
            )
    return models


def _at_least(name: str, values: list[int], least: int = 1) -> list[int]:
    if not values or min(values) < least:
        raise ConfigError(f"{name} is {values}, expected numbers of at least {least}")
    return values
