"""What a report is made from: the folders of scored runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.telling.expected import VERDICTS


@dataclass(frozen=True)
class Run:
    """A scored run."""

    name: str
    """Stands before its decoders' names; empty where it is the only one."""
    folder: Path
    scores: Mapping[str, Any]
    """The content of scores.json."""

    @classmethod
    def read(cls, folder: Path, name: str = "") -> "Run":
        """Raises DataError if there is no scores.json, or half of one."""
        return cls(name, folder, _json(folder / "scores.json"))

    @property
    def title(self) -> str:
        """Its name, or its folder's."""
        return self.name or self.folder.resolve().name

    @property
    def decoders(self) -> dict[str, Any]:
        """By the names that the report has for them."""
        return {self.named(key): part for key, part in self.scores["decoders"].items()}

    @property
    def base(self) -> Mapping[str, Any]:
        """The base, as the run had it."""
        return self.scores["provenance"]["base"]

    @cached_property
    def made(self) -> Mapping[str, Any]:
        """Provenance of the decoding: a run may be scored elsewhere, and later."""
        return _json(self.folder / "provenance.json")

    @property
    def config(self) -> str | None:
        """The resolved config; None for a run that was started from Python."""
        path = self.folder / "config.yaml"
        return path.read_text(encoding="utf-8") if path.exists() else None

    @cached_property
    def verdicts(self) -> Mapping[str, Any] | None:
        """What its recipe says of these very scores; None for a run of no recipe."""
        path = self.folder / VERDICTS
        found = _json(path) if path.exists() else None
        current = found is not None and found["provenance"] == self.scores["provenance"]
        return found if current else None

    @property
    def tasks(self) -> str:
        """Their descriptions, as JSON."""
        return json.dumps(self.scores["provenance"]["tasks"], indent=1, ensure_ascii=False)

    def named(self, key: str) -> str:
        """The report's name of something of this run."""
        return f"{self.name}/{key}" if self.name else key


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Several runs, named by their folders, or by their paths where folders have one name.

    Raises ConfigError if there is none, DataError for a run that was not scored.
    """
    if not folders:
        raise ConfigError("there is nothing to compare: name at least one run_dir")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return [Run.read(folder, name) for folder, name in zip(folders, names, strict=True)]


def merged(runs: Sequence[Run]) -> dict[str, Any]:
    """The decoders of all runs."""
    return {name: part for run in runs for name, part in run.decoders.items()}


def departures(runs: Sequence[Run]) -> list[str]:
    """Why numbers of these runs do not compare, in words: where bases, tasks, seeds or hardware
    differ."""
    return [line for run in runs[1:] for line in _departures(runs[0], run)]


def _departures(one: Run, other: Run) -> Iterator[str]:
    ours, theirs = one.scores["provenance"], other.scores["provenance"]
    if one.base["fingerprint"] != other.base["fingerprint"]:
        yield (
            f"base: {one.base['name']} in {one.title}, {other.base['name']} in {other.title} "
            "(other weights)"
        )
    for key in ("seed", "reference_seed"):
        if ours[key] != theirs[key]:
            yield f"{key}: {ours[key]} in {one.title}, {theirs[key]} in {other.title}"
    if one.made["hardware"] != other.made["hardware"]:
        yield (
            f"hardware, so times: {one.made['hardware']} in {one.title}, "
            f"{other.made['hardware']} in {other.title}"
        )
    for task in ours["tasks"].keys() & theirs["tasks"].keys():
        mine, yours = ours["tasks"][task]["init_args"], theirs["tasks"][task]["init_args"]
        changed = sorted(k for k in mine.keys() | yours.keys() if mine.get(k) != yours.get(k))
        if changed:
            yield f"task {task}: {', '.join(changed)} not the same in {one.title} and {other.title}"


def _json(path: Path) -> Any:
    if not path.exists():
        raise DataError(f"{path} does not exist: score the run first")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
