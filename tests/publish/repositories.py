"""Repositories of the hub, as its client sees them, without the hub."""

import shutil
from pathlib import Path
from typing import Any

from dlmjoint import cli
from tests.conftest import CHECKPOINTS, GOLDEN

ROOT = CHECKPOINTS.parent
SAMPLER = CHECKPOINTS / "tiny-joint"
REPO = "someone/tiny-joint"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, repo: str, folder: Path) -> None:
    """The folder as the hub's client keeps a download of it."""
    place = cache / f"models--{repo.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)


def copied(folder: Path, *left_out: str) -> Path:
    """The tiny sampler, but for some files."""
    shutil.copytree(SAMPLER, folder)
    for name in left_out:
        (folder / name).unlink()
    return folder


def trajectories(folder: Path) -> Path:
    """Five short ones of a random base."""
    cli.main(
        ["generate", "--base", str(GOLDEN / "dream"), "--output", str(folder), "--device", "cpu",
         "--prompts", "dlmjoint.trajectories.prompts.Unconditional", "--prompts.n", "5",
         "--max_new_tokens", "4", "--shard_size", "2"]
    )  # fmt: skip
    return folder


class Hub:
    """Notes what would be sent."""

    calls: list[tuple[str, dict[str, Any]]]

    def __init__(self) -> None:
        type(self).calls = []

    def create_repo(self, repo: str, **settings: Any) -> None:
        self.calls.append((repo, settings))

    def upload_folder(self, *, repo_id: str, folder_path: Path, **settings: Any) -> None:
        names = {path.name for path in Path(folder_path).iterdir()}
        self.calls.append((repo_id, settings | {"names": names}))
