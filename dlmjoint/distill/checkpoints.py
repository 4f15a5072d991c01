"""Which checkpoint a fit goes on from, and what is refused before anything of it is loaded."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmjoint.errors import ConfigError, LoadError
from dlmjoint.pickles import read_inert

log = logging.getLogger(__name__)

LAST = "last"
"""The word for the newest checkpoint of a run."""
SUFFIX = ".ckpt"
UNKNOWN = ("best", "hpc")
"""Lightning's words for checkpoints that only the process which trained knows."""
STATES = ("meta.pt", "checkpoint/*model_states.pt")
"""The file of a folder of shards that says what a checkpoint file says: torch's, and DeepSpeed's."""


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
            f"none of the checkpoints in {_listed(places)} is whole: start a new run in another "
            "folder, or remove them"
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


def check_named(name: str) -> None:
    """Refuse a checkpoint that is missing, damaged or none, or a word that names none.

    Raises LoadError, ConfigError.
    """
    if name in UNKNOWN:
        raise ConfigError(
            f"which checkpoint is `{name}` only the process that wrote it knows: give a file, or "
            "`last` for the newest in this run's folder"
        )
    if not Path(name).exists():
        raise LoadError(f"there is no checkpoint {name}")
    read_step(Path(name))


def to_go_on_from(folders: Iterable[Path], fitting: bool) -> Path | None:
    """The checkpoint `last` means; None where a fit has to begin.

    Raises LoadError where there is none and one is needed; and as `newest` does.
    """
    places = list(folders)
    found = newest(places)
    if found is not None:
        log.info("going on from %s", found)
    elif fitting:
        log.info("there is no checkpoint in %s yet: starting from step 0", _listed(places))
    else:
        raise LoadError(f"there is no checkpoint in {_listed(places)}: give one, --ckpt_path FILE")
    return found


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


def _listed(folders: Iterable[Path]) -> str:
    return ", ".join(map(str, folders))
