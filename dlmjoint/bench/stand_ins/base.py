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
from dlmjoint.disk.provenance import write_json
from dlmjoint.errors import ConfigError
from dlmjoint.models.files import INDEX, SINGLE, torch_dtype
from dlmjoint.models.load import find_family

SHARD_BYTES = 5_000_000_000
"""Most bytes in one file, as on the hub."""
STD = 0.02
FILE = "config.json"


def published_names() -> list[str]:
    """The bases whose published config values are in the package."""
    folder = files("dlmjoint.models") / "published"
    return sorted(path.name.removesuffix(".json") for path in folder.iterdir())


def is_random(model: str) -> bool:
    """Whether a model's weights are drawn here: a published name's, or a skeleton's. `dream-7b:2` has
    Dream's first two layers; `FOLDER:28` is a folder's config with 28."""
    name, colon, _ = model.partition(":")
    return bool(colon) or name in published_names()


def config_of(model: str) -> dict[str, Any]:
    """The values of a published base's config.json, or of a folder's, but for a skeleton's layers.

    Raises ConfigError for an unknown one.
    """
    name, colon, layers = model.partition(":")
    known = name in published_names()
    path = files("dlmjoint.models") / "published" / f"{name}.json" if known else Path(name, FILE)
    if not path.is_file():
        raise ConfigError(
            f"{name!r} is none of the published bases {published_names()}, nor a folder with a {FILE}"
        )
    values = json.loads(path.read_text(encoding="utf-8"))
    if colon:
        if not layers.isdecimal() or int(layers) < 1:
            raise ConfigError(f"{model!r}: expected a number of layers behind the colon")
        key = "num_hidden_layers" if "num_hidden_layers" in values else "n_layers"
        values |= {key: int(layers)}
        values.pop("layer_types", None)  # one entry per layer; follows from the others
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
    write_json(folder / FILE, values)
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
    """The model's folder or hub id; where its weights are random, they are written, once."""
    if not is_random(model):
        return Path(model)
    folder = setting.workdir / Path(model).name.replace(":", "-")
    if not folder.exists():
        note(f"writing random weights of {model}'s size")
        values, dtype = config_of(model), torch_dtype(setting.dtype)
        write_random_base(folder, values, dtype, setting.device)
    return folder
