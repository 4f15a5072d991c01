"""`dlmjoint publish`: a folder of ours as a repository of the Hugging Face hub."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  httpx's or httpx2's, by the hub's version
)
from huggingface_hub.utils import validate_repo_id

from dlmjoint.disk.atomic import sweep, whole_files
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.publish.sampler import stage_sampler
from dlmjoint.publish.trajectories import stage_trajectories

log = logging.getLogger(__name__)


def publish(
    folder: Path,
    repo: str,
    evaluation: Path | None = None,
    training: Path | None = None,
    base: str | None = None,
    base_revision: str | None = None,
    datasets: list[str] | None = None,
    license: str = "apache-2.0",
    private: bool = False,
    dry_run: Path | None = None,
) -> None:
    """Publish a joint sampler, or trajectories, with a card that is made from what is known of them.

    Folder and repository may be named first, without their flags: `dlmjoint publish FOLDER REPO`.
    A sampler goes out with the measurements and the provenance it has, and not without.

    Args:
        folder: a sampler's, as `fit` exports it, or one of `dlmjoint generate`.
        repo: hub id to publish under, `owner/name`.
        evaluation: run_dir of a scored evaluation of this very sampler; `evaluation` inside its
            folder by default.
        training: the resolved config.yaml of the sampler's training, which `fit` leaves in its logs;
            published beside it.
        base: hub id of the base, where the folder says another place.
        base_revision: its hub commit; the current one by default.
        datasets: hub ids of the trajectories the sampler was trained on.
        license: as the hub names licences. Ask the base's licence what it allows.
        private: create the repository as a private one.
        dry_run: write the repository's content into this new folder, and send nothing.
    """
    _check_name(repo)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: name one that fit or generate wrote")
    trajectories = (folder / "manifest.json").exists()
    kind: Literal["dataset", "model"] = "dataset" if trajectories else "model"
    if trajectories and any(given is not None for given in (evaluation, training, datasets)):
        raise ConfigError(
            f"{folder} holds trajectories: evaluation, training and datasets are a sampler's"
        )
    common: dict[str, Any] = {
        "base": base,
        "revision": base_revision,
        "license": license,
        "public": dry_run is None,
    }
    with staged(dry_run) as folder_to_be:
        if trajectories:
            stage_trajectories(folder, folder_to_be, repo, **common)
        else:
            stage_sampler(
                folder,
                folder_to_be,
                repo,
                evaluation=evaluation,
                training=training,
                datasets=datasets or [],
                **common,
            )
        if dry_run is None:
            _upload(folder_to_be, repo, kind, private)
    if dry_run is not None:
        log.info("wrote what would be published as %s to %s", repo, dry_run)


def _check_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} is no hub id: {error}") from error
    if "/" not in repo:
        raise ConfigError(f"{repo!r} names no owner: give owner/{repo}")


@contextmanager
def staged(dry_run: Path | None) -> Iterator[Path]:
    """An empty folder for the repository's content: one that goes, or the dry run's, which then holds
    all of it or nothing. Raises DataError if that is not new."""
    if dry_run is None:
        with TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    with whole_files(_new(dry_run)) as temporary:
        yield temporary


def _new(folder: Path) -> Path:
    sweep(folder)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty: name a new folder for the dry run")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _upload(folder: Path, repo: str, kind: Literal["dataset", "model"], private: bool) -> None:
    """One commit with everything. Raises ConfigError with the hub's own words if it refuses."""
    hub = HfApi()
    try:
        hub.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repo, repo_type=kind, folder_path=folder, commit_message="dlmjoint publish"
        )
    except (OSError, HTTPError) as error:
        raise ConfigError(
            f"the hub did not take {repo}: {error}. Log in with `hf auth login`, by a token that may "
            "write there; --dry-run DIR shows what would be sent"
        ) from error
    log.info("published %s", repo)
