"""`dlmjoint convert`: an ADJUST checkpoint becomes the folder of a joint sampler.

The authors' checkpoints are Lightning's: 33 GB of base, sampler and optimizer states in one pickle.
Only the pages of the weights asked for are read, and nothing the pickle names is run.
"""

import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dlmjoint.disk.atomic import whole_files
from dlmjoint.disk.pickles import read_inert
from dlmjoint.disk.provenance import write_provenance
from dlmjoint.errors import ConfigError, LoadError, MismatchError
from dlmjoint.models.files import ModelFiles
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import fingerprint_names, read_config
from dlmjoint.models.sampler_config import JointSamplerConfig
from dlmjoint.models.transformer import FINGERPRINT_ROWS, fingerprint

log = logging.getLogger(__name__)

SAMPLER = "drafter."
"""What the authors' names of the sampler's weights begin with, behind any prefix."""


def convert(
    checkpoint: Path,
    base: str,
    output: Path,
    trained_depth: int = 3,
    revision: str | None = None,
) -> None:
    """Import an ADJUST checkpoint as a joint sampler.

    Args:
        checkpoint: a Lightning checkpoint, a torch state dict or a safetensors file.
        base: folder or hub id of the base it was trained over; read in part, not loaded.
        output: folder for the sampler.
        trained_depth: sampler passes it was trained with; the authors' scripts train 3.
        revision: the base's hub commit.
    """
    _check_output(output)
    state = read_checkpoint(checkpoint)
    layer = sampler_weights(checkpoint, state)
    files = ModelFiles.find(base, revision)
    family, config = read_config(files)
    names = fingerprint_names(family, config)
    rows = files.read(names, FINGERPRINT_ROWS)
    sampler = JointSampler.over(
        config, name=files.name, revision=files.revision, fingerprint=fingerprint(rows)
    ).load_adjust(layer)
    _compare_bases(checkpoint, state, files, dict(zip(names, rows, strict=True)))
    for name, weight in sampler.named_parameters():
        if not all(map(torch.isfinite, weight.detach().aminmax())):
            raise LoadError(f"{checkpoint}: {name} holds numbers that are not finite")
    sampler.config.trained_depth = trained_depth
    with whole_files(output) as temporary:
        sampler.save_pretrained(temporary)
        write_provenance(
            temporary, {"checkpoint": checkpoint, "base": base, "depth": trained_depth}
        )
    JointSampler.from_pretrained(output)
    log.info("converted %s to %s", checkpoint, output)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Every weight of a checkpoint, by its name in the file, behind memory maps: what is not used
    is not read.

    Raises LoadError if the file is missing, cut off, or holds no weights.
    """
    if not path.is_file():
        raise LoadError(f"there is no checkpoint file {path}")
    state = _unpickled(path) if zipfile.is_zipfile(path) else _safetensors(path)
    weights = {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not weights:
        raise LoadError(f"{path} holds no weights: give a Lightning checkpoint or a state dict")
    return weights


def sampler_weights(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sampler's weights, their names beginning with `drafter.`.

    Raises MismatchError if there are none, or those of several samplers.
    """
    found = {name: f".{name}".partition(f".{SAMPLER}") for name in state if _of_sampler(name)}
    prefixes = {prefix for prefix, _, _ in found.values()}
    if not found:
        raise MismatchError(
            f"{path} holds no weights named {SAMPLER}*, such as {min(state)}: it is no checkpoint "
            "of an ADJUST sampler"
        )
    if len(prefixes) > 1:
        raise MismatchError(f"{path} holds several samplers, behind {sorted(prefixes)}")
    return {SAMPLER + rest: state[name] for name, (_, _, rest) in found.items()}


def _unpickled(path: Path) -> Mapping[Any, Any]:
    content = read_inert(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return state if isinstance(state, dict) else {}


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError) as error:
        raise LoadError(
            f"{path} is neither a torch nor a safetensors checkpoint, or it is cut off: {error}"
        ) from error


def _of_sampler(name: str) -> bool:
    return f".{SAMPLER}" in f".{name}"


def _compare_bases(
    path: Path, state: Mapping[str, Tensor], files: ModelFiles, rows: Mapping[str, Tensor]
) -> None:
    """Compare the base inside a checkpoint, if there is one, with the base of `files`.

    Raises MismatchError if a weight differs in the rows a fingerprint is taken of.
    """
    held: list[str] = []
    for name, ours in rows.items():
        ending = f".{name.removeprefix('model.')}"
        held += (theirs := _ending(state, ending))
        for one in theirs:
            if fingerprint([state[one]]) != fingerprint([ours]):
                raise MismatchError(
                    f"{path} was trained over another base than {files.name}: {one} differs from "
                    f"its {name}; give the base it was trained over"
                )
    if held:
        log.info("the base inside %s is %s (%s)", path, files.name, ", ".join(held))
    else:
        log.warning("%s holds no base: whether it is %s cannot be checked", path, files.name)


def _ending(state: Mapping[str, Tensor], ending: str) -> Sequence[str]:
    return [name for name in state if f".{name}".endswith(ending) and not _of_sampler(name)]


def _check_output(output: Path) -> None:
    """Raises ConfigError rather than write over a model that is no joint sampler, or one that was
    trained here."""
    if not (output / "config.json").exists():
        return
    if ModelFiles.find(str(output)).config.get("model_type") != JointSamplerConfig.model_type:
        raise ConfigError(f"{output} holds another model: give a folder of its own as output")
    if (output / "metrics.json").exists():
        raise ConfigError(f"{output} holds a sampler that `fit` has trained: give another output")
