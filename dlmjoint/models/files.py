"""The files of a model: where they lie, what they hold, read without reading all of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedConfig

from dlmjoint.errors import ConfigError, LoadError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
"""Weights that are not read."""
SETTINGS = ("*.json", "*.txt", "*.jinja", "*.model")
"""Everything of a hub repository that is neither weights nor code."""
FLOATING = ("F64", "F32", "F16", "BF16")
"""Element types a base's weights may be stored in, as safetensors names them."""
DTYPES = ("float32", "bfloat16", "float16", "float64")
"""Element types a base may be loaded as."""


@dataclass(frozen=True)
class Stored:
    """One weight as its file describes it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it."""


@dataclass(frozen=True)
class ModelFiles:
    """A local folder with a model in it, as published."""

    name: str
    """What the user called it: a folder or a hub id."""
    folder: Path
    revision: str | None
    """The hub's commit, where it came from a hub."""

    @classmethod
    def find(cls, name: str, revision: str | None = None, weights: bool = True) -> "ModelFiles":
        """The files of a folder or a hub repository, fetched if need be (`weights=False`: without
        the weights). With HF_HUB_OFFLINE=1 only what was fetched before is found.

        Raises LoadError if there is no such model, ConfigError for a revision of a folder.
        """
        if Path(name).is_dir():
            if revision is not None:
                raise ConfigError(f"{name} is a folder; a revision belongs to a hub id")
            return cls(name, Path(name), None)
        wanted = [*SETTINGS, *(["*.safetensors"] if weights else [])]
        try:
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
        except (OSError, ValueError, HFValidationError) as error:
            raise LoadError(
                f"{name} is neither a folder nor a reachable hub model: {error}"
            ) from error
        return cls(name, folder, folder.name)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The values of config.json. Raises LoadError if there is none, or no JSON."""
        try:
            values, _ = PreTrainedConfig.get_config_dict(self.folder)
        except OSError as error:
            raise LoadError(f"{self.name}: {error}") from error
        if not values:
            raise LoadError(f"{self.name} has no config.json: is it a model folder?")
        return values

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The end ids of generation_config.json; none without one. Raises LoadError if it is
        damaged."""
        path = self.folder / "generation_config.json"
        if not path.exists():
            return ()
        try:
            ends = json.loads(path.read_text()).get("eos_token_id")
        except (ValueError, AttributeError) as error:
            raise LoadError(f"{self.name}: {path.name} is damaged: {error!r}") from error
        if ends is None:
            return ()
        return tuple(ends) if isinstance(ends, list) else (ends,)

    @cached_property
    def weights(self) -> Mapping[str, Stored]:
        """Every weight by its published name, from the headers of the safetensors files.

        Raises LoadError if a file is missing, cut off, or does not hold what the index says.
        """
        index = self.folder / INDEX
        if not index.exists():
            return self._header(self.folder / SINGLE)
        try:
            listed: dict[str, str] = json.loads(index.read_text())["weight_map"]
        except (ValueError, KeyError) as error:
            raise LoadError(f"{self.name}: {INDEX} is damaged: {error!r}") from error
        found = {}
        for file in sorted(set(listed.values())):
            found |= self._header(self.folder / file)
        lacking = [
            weight
            for weight, file in listed.items()
            if weight not in found or found[weight].file.name != file
        ]
        if lacking:
            raise LoadError(
                f"{self.name}: {len(lacking)} weights are not in the shard {INDEX} names, "
                f"{lacking[0]} for one; fetch the folder again"
            )
        return found

    @property
    def has_weights(self) -> bool:
        """Whether there are weights beside the settings."""
        return (self.folder / INDEX).exists() or (self.folder / SINGLE).exists()

    def _header(self, path: Path) -> dict[str, Stored]:
        if not path.exists():
            refuse_pickles(self.folder)
            raise LoadError(
                f"{self.name}: the weights {path.name} are missing (safetensors files are read, "
                "no pickles); fetch the folder again"
            )
        try:
            with safe_open(path, "pt") as file:
                slices = {weight: file.get_slice(weight) for weight in file.keys()}  # noqa: SIM118
                return {
                    weight: Stored(path, tuple(part.get_shape()), part.get_dtype())
                    for weight, part in slices.items()
                }
        except (SafetensorError, OSError) as error:
            raise LoadError(
                f"{self.name}: the weights do not load: {path.name} is cut off or damaged "
                f"({error}); fetch it again"
            ) from error

    def check(self, expected: Mapping[str, Sequence[int]]) -> None:
        """Compare names, shapes and element types with what the config asks for.

        Raises LoadError that names what differs. Nothing but headers is read.
        """
        found = {name: one.shape for name, one in self.weights.items()}
        told = differences(expected, found)
        if told:
            raise LoadError(
                f"{self.name}: the weights do not fit the config. {told}. Fetch the folder again, or "
                "mend its config.json"
            )
        odd = {name: one.dtype for name, one in self.weights.items() if one.dtype not in FLOATING}
        if odd:
            raise LoadError(
                f"{self.name}: weights of type {sorted(set(odd.values()))}, such as "
                f"{min(odd)}, are no floating-point weights; take the unquantised model"
            )

    @contextmanager
    def opened(self) -> Iterator[dict[str, Any]]:
        """Every weight by its published name, as a slice that reads the weight when it is indexed.

        Read, not memory-mapped: mapped pages would stay in the process's memory until the last
        shard is done, so that loading bfloat16 files as float32, or onto a GPU, took the memory of
        all shards beside the model's own.
        """
        with ExitStack() as stack:
            files = {one.file for one in self.weights.values()}
            handles = {
                file: stack.enter_context(safe_open(file, "pt", backend="pread")) for file in files
            }
            yield {name: handles[one.file].get_slice(name) for name, one in self.weights.items()}

    def read(self, weights: Sequence[str], rows: int | None = None) -> list[Tensor]:
        """Some weights, or their first rows, and no more of the files than that.

        Raises LoadError if the folder has no such weight.
        """
        absent = [name for name in weights if name not in self.weights]
        if absent:
            raise LoadError(f"{self.name} has no weight {absent[0]}; fetch the folder again")
        lengths = [self.weights[name].shape[0] for name in weights]
        with self.opened() as slices:
            # safetensors, unlike torch, refuses a slice that ends behind the last row.
            return [
                slices[name][: length if rows is None else min(rows, length)]
                for name, length in zip(weights, lengths, strict=True)
            ]


def refuse_pickles(folder: Path) -> None:
    """Raise LoadError if all the weights there are in a folder are pickles."""
    pickled = sorted(path for kind in PICKLES for path in folder.glob(kind))
    if pickled and not ModelFiles(str(folder), folder, None).has_weights:
        raise refused_pickle(pickled[0])


def refused_pickle(what: object) -> LoadError:
    """What is said of weights that are a pickle with code in it, or one of a kind that is not read."""
    return LoadError(
        f"{what}: weights in a pickle may hold code, and nothing of it was run. Save the model again "
        "where it is trusted (save_pretrained writes model.safetensors, which is read); dlmjoint "
        "convert reads the weights of an ADJUST checkpoint"
    )


def differences(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]
) -> str | None:
    """How the names and shapes of weights differ, in words; None if they do not."""
    wrong = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(found[name])} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ],
    }
    told = [f"{kind}: {_some(names)}" for kind, names in wrong.items() if names]
    return "; ".join(told) or None


def torch_dtype(name: str) -> torch.dtype:
    """The floating-point type of a torch name. Raises ConfigError for any other."""
    if name not in DTYPES:
        raise ConfigError(
            f"a base cannot be loaded as {name!r}: give one of {', '.join(DTYPES)} as dtype"
        )
    return getattr(torch, name)


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
