"""From a name to a base: which family, which folder, which commit."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from transformers import PreTrainedConfig

import dlmjoint.models
from dlmjoint.errors import ConfigError, LoadError
from dlmjoint.models.transformer import TransformerBase


def find_family(model_type: str) -> type[TransformerBase]:
    """The family that reads configs of this `model_type`: any `TransformerBase` in `dlmjoint.models`.

    A new family is a new file there; nothing lists them. Raises ConfigError for an unknown one.
    """
    found = {}
    for module in pkgutil.iter_modules(dlmjoint.models.__path__):
        members = vars(importlib.import_module(f"dlmjoint.models.{module.name}")).values()
        for member in members:
            if inspect.isclass(member) and issubclass(member, TransformerBase):
                found[getattr(member, "model_type", None)] = member
    found.pop(None, None)  # the shared class itself is no family
    if model_type not in found:
        raise ConfigError(
            f"model_type {model_type!r} is no known family of bases; known: {sorted(map(str, found))}"
        )
    return found[model_type]


def load_base(
    name: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
) -> TransformerBase:
    """The frozen base in a local folder or a hub repository.

    `dtype` is a torch name; CPUs without bfloat16 instructions want float32. `revision` pins a hub
    commit. Raises LoadError if files are missing or corrupt, ConfigError for an unknown family.
    """
    folder, found = _local_folder(str(name), revision)
    try:
        values, _ = PreTrainedConfig.get_config_dict(folder)
    except OSError as error:
        raise LoadError(f"{name}: {error}") from error
    if not values:
        raise LoadError(f"{name} has no config.json: is it a model folder?")
    family = find_family(str(values.get("model_type")))
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype):
        raise ConfigError(f"dtype {dtype!r} is no torch dtype; try float32 or bfloat16")
    return family.load(folder, name=str(name), revision=found, device=device, dtype=torch_dtype)


def _local_folder(name: str, revision: str | None) -> tuple[Path, str | None]:
    """Where the files lie on this machine, and the commit they are, fetched if need be."""
    if Path(name).is_dir():
        if revision is not None:
            raise ConfigError(f"{name} is a folder; a revision belongs to a hub id")
        return Path(name), None
    try:
        folder = Path(snapshot_download(name, revision=revision))
    except (OSError, ValueError, HFValidationError) as error:
        raise LoadError(f"{name} is neither a folder nor a reachable hub model: {error}") from error
    return folder, folder.name
