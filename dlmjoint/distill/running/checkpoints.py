"""Which checkpoint a fit goes on from, and what is refused before anything of it is loaded."""

import io
import logging
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from dlmjoint.disk.pickles import foreign, names_in, read_inert
from dlmjoint.errors import ConfigError, LoadError

log = logging.getLogger(__name__)

LAST = "last"
"""The word for the newest checkpoint of a run."""
SUFFIX = ".ckpt"
UNKNOWN = ("best", "hpc")
"""Lightning's words for checkpoints that only the process which trained knows."""
STATES = ("meta.pt", "checkpoint/*model_states.pt")
"""The file of a folder of shards that says what a checkpoint file says: torch's, and DeepSpeed's."""
INDEX = ".metadata"
"""What torch calls its index of a folder of shards: a pickle."""
RECORDS = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    *(
        ("torch.distributed.checkpoint.metadata", name)
        for name in (
            "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata",
            "ChunkStorageMetadata", "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING",
        )
    ),
}  # fmt: skip
"""All that such an index consists of, element types aside."""
DEEPSPEED = {
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
}
"""What DeepSpeed's own states consist of, beside what torch holds for harmless."""


@dataclass(frozen=True)
class Found:
    """A checkpoint that is whole."""

    step: int
    written: float
    """Seconds since the epoch."""
    path: Path


def newest(folders: Iterable[Path]) -> Path | None:
    """The checkpoint of most steps in some folders, whatever it is called; None if there is none.

    Those that are damaged, as a machine that fails may leave them, are passed over with a warning.
    Raises LoadError if none is whole, ConfigError if another one of fewer steps was written later:
    two runs have been there, and which is to go on cannot be told.
    """
    places = list(dict.fromkeys(folder.resolve() for folder in folders))
    there = [path for place in places for path in sorted(place.glob(f"*{SUFFIX}"))]
    if not there:
        return None
    whole = []
    for path in there:
        try:
            whole.append(Found(read_step(path), path.stat().st_mtime, path))
        except LoadError as error:
            log.warning("%s; it is passed over", error)
    if not whole:
        raise LoadError(
            f"of {_listed(there)} no checkpoint is whole: start a new run in another folder, or "
            "remove them"
        )
    farthest = max(whole, key=lambda found: (found.step, found.written))
    latest = max(whole, key=lambda found: (found.written, found.step))
    if latest.step < farthest.step and latest.written > farthest.written:
        raise ConfigError(
            f"which checkpoint is the last one? {farthest.path} is of step {farthest.step}, and "
            f"{latest.path} of step {latest.step} was written later, by another run: say "
            "--ckpt_path FILE"
        )
    return farthest.path


def read_step(path: Path) -> int:
    """How many optimizer steps a checkpoint has seen. Raises LoadError if it is none, or damaged."""
    step = _content(path).get("global_step")
    if not isinstance(step, int):
        raise LoadError(f"{path} is no checkpoint of a fit: it names no step")
    return step


@dataclass(frozen=True)
class Use:
    """What a checkpoint is wanted for."""

    fitting: bool
    """To train on from it, rather than to measure what it holds."""
    trusted: bool
    """Whether it may run what it likes."""

    def check(self, path: Path) -> None:
        """Raise LoadError if the checkpoint is damaged or none, would run code, or lacks what the
        use needs. Nothing of it is run."""
        content = _content(path)
        if not self.trusted:
            check_harmless(path)
        lacking = [
            name for name in ("global_step", "pytorch-lightning_version") if name not in content
        ]
        if lacking:
            raise LoadError(f"{path} is no checkpoint of a fit: it lacks {_listed(lacking)}")
        if self.fitting and path.is_file() and "optimizer_states" not in content:
            raise LoadError(
                f"{path} holds weights alone (save_weights_only): no fit can go on from it. Take a "
                "whole checkpoint; dlmjoint.distill.start.Existing starts a new run from a sampler"
            )


def check_named(name: str, use: Use) -> None:
    """Refuse a checkpoint that is missing or not of this use, or a word that names none.

    Raises LoadError, ConfigError.
    """
    if name in UNKNOWN:
        raise ConfigError(
            f"which checkpoint is `{name}` only the process that wrote it knows: give a file, or "
            "`last` for the newest in this run's folder"
        )
    if not Path(name).exists():
        raise LoadError(f"there is no checkpoint {name}")
    use.check(Path(name))


def to_go_on_from(folders: Iterable[Path], use: Use) -> Path | None:
    """The checkpoint `last` means; None where a fit has to begin.

    Raises LoadError where there is none and one is needed, or it is not of this use; and as `newest`
    does.
    """
    places = list(folders)
    found = newest(places)
    if found is not None:
        use.check(found)
        log.info("going on from %s", found)
    elif use.fitting:
        log.info("there is no checkpoint in %s yet: starting from step 0", _listed(places))
    else:
        raise LoadError(f"there is no checkpoint in {_listed(places)}: give one, --ckpt_path FILE")
    return found


def check_harmless(path: Path) -> None:
    """Raise LoadError if a checkpoint would run code: a file, or what torch and DeepSpeed read of a
    folder of shards, each with `weights_only=False`."""
    called: set[str] = set()
    if (path / INDEX).exists():
        called |= _called_by_shards(path)
    files = [path] if path.is_file() else sorted(path.rglob("*.pt"))
    for file in files:
        called |= foreign(file, file) - DEEPSPEED
    if called:
        raise LoadError(
            f"{path} is a program as much as a checkpoint: it would call {_listed(sorted(called))}. "
            "So far nothing of it was run. Take a checkpoint that `dlmjoint fit` has written, or, if "
            "you trust whoever wrote this one, say --weights_only false"
        )


def _called_by_shards(path: Path) -> set[str]:
    """What torch's index of shards would call and, where that is nothing, the values beside tensors."""
    content = (path / INDEX).read_bytes()
    names = names_in(content, path / INDEX)
    called = {f"{module}.{name}" for module, name in names if not _of_index(module, name)}
    if called:
        return called
    index = pickle.loads(content)  # of classes that were all looked at
    for where, stored in index.storage_data.items():
        if isinstance(index.state_dict_metadata[where.fqn], BytesStorageMetadata):
            file = path / stored.relative_path
            with file.open("rb") as opened:
                opened.seek(stored.offset)
                value = io.BytesIO(opened.read(stored.length))
            called |= foreign(value, file)
    return called


def _of_index(module: str, name: str) -> bool:
    """Whether a name is one of those that an index of shards consists of: plain records."""
    element = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
    return element or (module, name) in RECORDS


def _content(path: Path) -> Mapping[str, Any]:
    """What a checkpoint says beside its weights; of a folder of shards, what one file in it says."""
    source = path
    if path.is_dir():
        found = sorted(file for pattern in STATES for file in path.glob(pattern))
        if not found:
            raise LoadError(f"the folder {path} is no checkpoint: it holds none of {STATES}")
        source = found[0]
    content = read_inert(source)
    return content if isinstance(content, dict) else {}


def _listed(things: Iterable[object]) -> str:
    return ", ".join(map(str, things))
