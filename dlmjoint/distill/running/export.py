"""The finished sampler's folder: nothing more trained is ever lost to it."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import lightning as L
from torch import Tensor

from dlmjoint.disk.atomic import whole_files
from dlmjoint.disk.provenance import write_json, write_provenance
from dlmjoint.errors import ConfigError
from dlmjoint.models.files import SINGLE
from dlmjoint.models.joint import JointSampler

log = logging.getLogger(__name__)

METRICS = "metrics.json"


def lost(folder: Path, steps: int) -> str | None:
    """What would be lost by exporting a sampler of so many steps to a folder, in words; None if
    nothing would."""
    if not (folder / SINGLE).exists():
        return None
    path = folder / METRICS
    there = json.loads(path.read_text()).get("step") if path.exists() else None
    if there is not None and there <= steps:
        return None
    known = "unknown" if there is None else there
    return f"{folder} holds a sampler of {known} steps, and this run has {steps}"


def check_place(folder: Path, trainer: L.Trainer) -> None:
    """Raise ConfigError if a run of known length would replace a sampler that is more trained."""
    told = None if trainer.max_steps < 1 else lost(folder, trainer.max_steps)
    if told is not None:
        raise ConfigError(
            f"{told}: give another folder (trainer.default_root_dir, model.export), or say "
            "--model.overwrite true"
        )


def export(
    folder: Path,
    sampler: JointSampler,
    weights: Mapping[str, Tensor],
    steps: int,
    measured: Mapping[str, float],
    settings: Mapping[str, object],
    *,
    overwrite: bool,
) -> Path:
    """Write the sampler with its provenance and last numbers; returns where.

    A run that ended before its time, and whose folder holds one that is more trained, exports to a
    folder beside it.
    """
    told = None if overwrite else lost(folder, steps)
    if told is not None:
        folder = folder.with_name(f"{folder.name}-{steps}-steps")
        log.warning("%s: exporting to %s", told, folder)
    finished = JointSampler(sampler.config)
    finished.load_state_dict(weights)
    with whole_files(folder) as temporary:
        finished.save_pretrained(temporary)
        write_provenance(temporary, settings)
        write_json(temporary / METRICS, {"step": steps, **measured})  # says how trained they are
    log.info("exported the sampler to %s", folder)
    return folder
