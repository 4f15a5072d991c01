"""Paths as people write them in settings."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace


def expanded(value: Any) -> Any:
    """Settings in which every `~` and `~/...`, text or path and however deep, names the home.

    A shell expands it at the beginning of an argument only, and nobody does in YAML. No setting that
    begins so is meant to be anything else.
    """
    if isinstance(value, Namespace):
        return Namespace(**{name: expanded(one) for name, one in vars(value).items()})
    if isinstance(value, dict):
        return {name: expanded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [expanded(one) for one in value]
    if isinstance(value, str | Path) and (str(value) == "~" or str(value).startswith("~/")):
        return type(value)(Path(value).expanduser())
    return value
