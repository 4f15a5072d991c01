"""A folder as the hub would hold it, with random weights: what is at hand where no weights are."""

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dlmjoint.bench.suite import Setting
from dlmjoint.errors import ConfigError
from dlmjoint.models.files import INDEX, SINGLE, torch_dtype
from dlmjoint.models.load import find_family
from dlmjoint.provenance import write_json

SHARD_BYTES = 5_000_000_000
"""Most bytes in one file, as on the hub."""
STD = 0.02


def published_names() -> list[str]:
    """The bases whose published config values are in the package."""
    folder = files("dlmjoint.models") / "published"
    return sorted(path.name.removesuffix(".json") for path in folder.iterdir())


def is_published(model: str) -> bool:
    """Whether a model is one of them, or its skeleton: `dream-7b:2` has its first two layers."""
    return model.partition(":")[0] in published_names()


def published_config(model: str) -> dict[str, Any]:
    """The values of a base's config.json, as published but for the layers of a skeleton.

    Raises ConfigError for an unknown one.
    """
    name, _, layers = model.partition(":")
    if name not in published_names():
        raise ConfigError(f"{name!r} is none of the published bases {published_names()}")
    path = files("dlmjoint.models") / "published" / f"{name}.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    if layers:
        if not layers.isdecimal() or int(layers) < 1:
            raise ConfigError(f"{model!r}: expected a number of layers behind the colon")
        key = "num_hidden_layers" if "num_hidden_layers" in values else "n_layers"
        values |= {key: int(layers)}
    return values


def write_random_base(
    folder: Path,
    values: dict[str, Any],
    dtype: torch.dtype,
    device: str = "cpu",
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Write config.json and sharded weights, drawn weight by weight in their own dtype; the bytes
    written.

    Normal with a small deviation, norms at one: activations stay finite at any depth, and the head
    is wide enough apart that tokens differ. Raises ConfigError if the disk has no room for them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    family = find_family(str(values["model_type"]))
    shapes = family.shapes(family.read_config(values))
    _check_room(folder, sum(map(prod, shapes.values())) * dtype.itemsize)
    write_json(folder / "config.json", values)
    generator = torch.Generator(device).manual_seed(0)
    shards: list[dict[str, Tensor]] = [{}]
    names: list[list[str]] = [[]]
    total = held = 0

    def flush() -> None:
        save_file(shards[-1], folder / f"part-{len(shards):05d}.safetensors", {"format": "pt"})

    for name, shape in shapes.items():
        weight = _drawn(name, torch.empty(shape, dtype=dtype, device=device), generator)
        size = weight.numel() * weight.element_size()
        if held and held + size > shard_bytes:
            flush()
            shards[-1] = {}  # its memory is free before the next shard is drawn
            shards.append({})
            names.append([])
            held = 0
        shards[-1][name] = weight.cpu()
        names[-1].append(name)
        held, total = held + size, total + size
    flush()
    _rename(folder, names, total)
    return total


def _drawn(name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
    """The weight, filled in place."""
    if name.endswith(".bias"):
        return weight.zero_()
    if weight.ndim == 1:
        return weight.fill_(1)  # a norm's
    return weight.normal_(0, STD, generator=generator)


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ConfigError(
            f"random weights need {size / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free: name "
            "a workdir on a larger one"
        )


def _rename(folder: Path, names: list[list[str]], total: int) -> None:
    """The names of the hub: one file, or shards and their index."""
    if len(names) == 1:
        (folder / "part-00001.safetensors").rename(folder / SINGLE)
        return
    index = {}
    for number, part in enumerate(names, 1):
        file = f"model-{number:05d}-of-{len(names):05d}.safetensors"
        (folder / f"part-{number:05d}.safetensors").rename(folder / file)
        index |= dict.fromkeys(part, file)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": index})


def folder_of(model: str, setting: Setting, note: Callable[[str], None]) -> Path:
    """The model's folder or hub id; random weights are written for a published name, once."""
    if not is_published(model):
        return Path(model)
    folder = setting.workdir / model.replace(":", "-")
    if not folder.exists():
        note(f"writing random weights of {model}'s size")
        values, dtype = published_config(model), torch_dtype(setting.dtype)
        write_random_base(folder, values, dtype, setting.device)
    return folder
