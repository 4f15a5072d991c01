"""What was run, with what, written beside what came out."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from dlmjoint.disk.atomic import whole

PACKAGES = ("dlmjoint", "torch", "transformers", "lightning", "datasets", "mauve-text")


def provenance(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings, the versions, the hardware and the source revision of this process."""
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([_program(Path(sys.argv[0])), *sys.argv[1:]]),
        "settings": {key: _plain(value) for key, value in settings.items()},
        "source": _source(),
        "python": platform.python_version(),
        "versions": versions,
        "hardware": hardware(),
    }


def _program(path: Path) -> str:
    """As its user calls it: `python -m dlmjoint` runs the package's `__main__.py`."""
    return path.parent.name if path.name == "__main__.py" else path.name


def hardware() -> str:
    """The processor or accelerator in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {torch.get_num_threads()} threads"


def write_provenance(folder: Path, settings: Mapping[str, object]) -> None:
    """Write `provenance.json` into a folder."""
    write_json(folder / "provenance.json", provenance(settings))


def write_json(path: Path, value: object) -> None:
    """Write JSON as `write_text` writes."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never half of one."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _source() -> dict[str, object]:
    """The git commit of the code, and whether it was changed since; empty outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    return {"commit": commit, "modified": bool(_git(root, "status", "--porcelain", "-uno"))}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
