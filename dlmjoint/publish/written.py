"""What a folder says of its own origin, read and refused where it is not enough to publish."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlmjoint.errors import DataError

PROVENANCE = "provenance.json"


def read_provenance(folder: Path, way_out: str) -> dict[str, Any]:
    """The content of a folder's provenance.json.

    Raises DataError, which ends in `way_out`, if there is none or it does not say what was run.
    """
    values = read_json(folder / PROVENANCE, way_out)
    for key in ("command", "settings", "versions", "hardware", "created"):
        if not values.get(key):
            raise DataError(f"{folder / PROVENANCE} does not say the {key}: {way_out}")
    return values


def read_json(path: Path, way_out: str) -> dict[str, Any]:
    """A JSON object. Raises DataError, which ends in `way_out`, if there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} is missing: {way_out}") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): {way_out}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is no JSON object: {way_out}")
    return values


def commit(provenance: Mapping[str, Any]) -> str:
    """The source revision in words."""
    source = provenance.get("source") or {}
    if "commit" not in source:
        return f"dlmjoint {provenance['versions'].get('dlmjoint', 'of an unknown version')}"
    changed = ", with changes not committed" if source.get("modified") else ""
    return f"dlmjoint at commit {source['commit'][:12]}{changed}"
