"""What a run was asked to do, as plain values: compared before a run goes on, rebuilt to score it."""

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import nn

from dlmjoint.costs.arithmetic import measure
from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.tasks.base import Task
from dlmjoint.models.base import Base
from dlmjoint.models.transformer import TransformerBase

FILE = "settings.json"
FREE = ("n", "metrics", "judge", "limits")
"""Fields of a task that may change between runs into one folder: they decode nothing anew."""


def settings_of(
    base: Base,
    decoders: Mapping[str, Policy],
    loaded: Mapping[str, Policy],
    tasks: Sequence[Task],
    seed: int,
    reference_seed: int,
) -> dict[str, Any]:
    """Everything the generations depend on; `loaded` holds the decoders with their samplers."""
    return {
        "base": base_settings(base),
        "size": _size(base),
        "seed": seed,
        "reference_seed": reference_seed,
        "decoders": {
            name: {"policy": describe(policy), "weights": weights_hash(loaded[name])}
            for name, policy in decoders.items()
        },
        "tasks": {task.name: describe(task) for task in tasks},
    }


def base_settings(base: Base) -> dict[str, Any]:
    """Which base it was, and how it was loaded; the dtype as `load_base` takes it."""
    return {
        "name": base.name,
        "revision": base.revision,
        "fingerprint": base.fingerprint,
        "dtype": str(base.dtype).removeprefix("torch."),
        "bits": base.bits,
    }


def load(run_dir: Path) -> dict[str, Any]:
    """The settings of a run. Raises DataError if the folder holds none."""
    path = run_dir / FILE
    if not path.exists():
        raise DataError(f"{run_dir} has no {FILE}: it is not the folder of an evaluation")
    return json.loads(path.read_text())


def merge(old: dict[str, Any], new: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """The settings of both; decoders and tasks may be added.

    Raises ConfigError naming every value that differs, since old and new lines would not mix; and
    where fewer examples would take the place of scores that are there.
    """
    _refuse_fewer(old["tasks"], new["tasks"], run_dir)
    for part in ("decoders", "tasks"):
        shared = old[part].keys() & new[part].keys()
        new_shared, old_shared = ({key: s[part][key] for key in shared} for s in (new, old))
        _refuse(old_shared, new_shared, run_dir, part)
    rest = ("base", "seed", "reference_seed")
    _refuse({key: old[key] for key in rest}, {key: new[key] for key in rest}, run_dir, "")
    return new | {part: old[part] | new[part] for part in ("decoders", "tasks")}


def describe(value: object) -> Any:
    """A value as JSON; an object becomes class_path and init_args, as a config file writes it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    path = f"{type(value).__module__}.{type(value).__qualname__}"
    if is_dataclass(value):
        return {
            "class_path": path,
            "init_args": {f.name: describe(getattr(value, f.name)) for f in fields(value)},
        }
    return {"object": path}


def build(value: Any) -> Any:
    """The object a description came from. Raises ConfigError for one that was made in Python."""
    if isinstance(value, list):
        return [build(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "object" in value:
        raise ConfigError(
            f"a {value['object']} was given to this run as an object: give the decoders to score()"
        )
    if "class_path" not in value:
        return {key: build(item) for key, item in value.items()}
    module, name = value["class_path"].rsplit(".", 1)
    kind = getattr(importlib.import_module(module), name)
    hints = get_type_hints(kind)
    return kind(
        **{key: _fitting(build(item), hints[key]) for key, item in value["init_args"].items()}
    )


def _fitting(value: Any, hint: Any) -> Any:
    """A list as a tuple, and texts that are keys as numbers, where the field has them: JSON knows
    lists and texts only."""
    allowed = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if isinstance(value, list) and any(get_origin(kind) is tuple for kind in allowed):
        return tuple(value)
    if isinstance(value, dict) and any(get_args(kind)[:1] == (int,) for kind in allowed):
        return {int(key): item for key, item in value.items()}
    return value


def weights_hash(policy: Policy) -> str | None:
    """A hash of the models a policy holds once loaded - samplers whole, guides by their
    fingerprint - None if it holds none."""
    digest = hashlib.sha256()
    held = [
        member
        for part in (getattr(policy, f.name) for f in fields(policy))
        if is_dataclass(part)
        for member in (getattr(part, f.name) for f in fields(part))
        if isinstance(member, nn.Module | Base)
    ]
    for model in held:
        if isinstance(model, Base):
            digest.update(model.fingerprint.encode())
            continue
        for tensor in model.state_dict().values():
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16] if held else None


def _size(base: Base) -> dict[str, int] | None:
    """What the base's costs follow from, where arithmetic knows its kind."""
    if not isinstance(base, TransformerBase):
        return None
    return asdict(measure(type(base), base.config))


def _refuse(old: dict[str, Any], new: dict[str, Any], run_dir: Path, where: str) -> None:
    changes = list(_changes(old, new, where))
    if changes:
        raise ConfigError(
            f"{run_dir} was begun with other settings: {'; '.join(changes)}. "
            "Use another run_dir, or the same settings"
        )


def _refuse_fewer(old: dict[str, Any], new: dict[str, Any], run_dir: Path) -> None:
    """Generations stay, whatever a later run asks for; the table of scores is replaced."""
    if not (run_dir / "scores.json").exists():
        return
    for name in old.keys() & new.keys():
        there, asked = (tasks[name].get("init_args", {}).get("n", 0) for tasks in (old, new))
        if asked < there:
            raise ConfigError(
                f"{run_dir} has scores of {there} examples of {name}, which {asked} would replace: "
                f"use another run_dir, or remove {run_dir / 'scores.json'}"
            )


def _changes(old: Any, new: Any, where: str) -> list[str]:
    """Every difference as `path: old there, new now`."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{where}: {old!r} there, {new!r} now"]
    found = []
    for key in sorted(old.keys() | new.keys()):
        free = (key in FREE and where.startswith("tasks.")) or (where, key) == ("base", "name")
        inner = where if key == "init_args" else f"{where}.{key}".lstrip(".")
        if not free:
            found += _changes(old.get(key), new.get(key), inner)
    return found
