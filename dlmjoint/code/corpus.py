"""The corpus: what pinned wheels of permissive licence hold, held out by distribution.

One command rebuilds it (`python -m train.code_corpus`); the texts stay in its folder, the manifest
with versions, licences and counts is in the repository. The texts depend on `sources.txt` and, for
their layout, on the minor version of the running Python (`ast.unparse`).
"""

import json
import logging
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from email.parser import HeaderParser
from pathlib import Path
from typing import Literal

from dlmjoint.code.functions import nameless, short_functions
from dlmjoint.disk.provenance import write_json, write_text
from dlmjoint.errors import ConfigError

log = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("sources.txt")
"""pip's own format: every wheel by version and hash."""
MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]
HELD_OUT: dict[str, Split] = {
    "falcon": "validation",
    "marshmallow": "validation",
    "networkx": "validation",
    "seaborn": "validation",
    "tornado": "validation",
    "alembic": "test",
    "celery": "test",
    "datasets": "test",
    "scrapy": "test",
    "toolz": "test",
    "xarray": "test",
}
"""Whole distributions, since near-copies of a function lie in its own package."""
PERMISSIVE = ("apache", "bsd", "mit", "psf", "python software foundation", "hpnd", "isc", "zpl")
"""A licence is taken if it has one of these words and none of the next."""
OTHERS = ("gpl", "mpl", "mozilla", "eupl", "cc-by", "proprietary", "commercial", "general public")
COPIED = ("vendor", "extern", "third_party", "site-packages")
"""Folders that hold other distributions' files have one of these in their name."""


def download(folder: Path) -> None:
    """Fetch the wheels of `sources.txt` with pip, which checks their hashes. Nothing is installed.

    Raises subprocess.CalledProcessError if pip fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
    ]
    # One platform and Python for everybody, so that everybody gets the same wheels.
    tags = "--python-version 3.11 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64"
    subprocess.run(
        [sys.executable, *command, *tags.split(), "-r", str(SOURCES), "-d", str(folder)], check=True
    )


class Wheel:
    """A wheel file: its metadata and its sources. Nothing of it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name, self.version = path.name.split("-")[:2]
        self.name = self.name.lower().replace("_", "-")

    @property
    def licence(self) -> str:
        """The licence its metadata state, in one line: an expression, classifiers or the field."""
        with zipfile.ZipFile(self.path) as files:
            (name,) = (n for n in files.namelist() if _is_metadata(n))
            fields = HeaderParser().parsestr(files.read(name).decode())
        if expression := fields["License-Expression"]:
            return expression
        classified = [
            one.rsplit(" :: ", 1)[1]
            for one in fields.get_all("Classifier", [])
            if one.startswith("License :: ") and one.count(" :: ") > 1
        ]
        if classified:
            return "; ".join(classified)
        return (fields["License"] or "unstated").strip().split("\n")[0]

    @property
    def is_permissive(self) -> bool:
        """Whether the stated licence is one that allows training on it and asks for attribution."""
        stated = self.licence.lower()
        return any(w in stated for w in PERMISSIVE) and not any(w in stated for w in OTHERS)

    def functions(self) -> tuple[list[str], int]:
        """The short functions of its own files, in the order of the files' names, and the number of
        files that are not Python 3."""
        found, unparsable = [], 0
        with zipfile.ZipFile(self.path) as files:
            for name in sorted(files.namelist()):
                if not name.endswith(".py") or any(word in name for word in COPIED):
                    continue
                try:
                    found += short_functions(files.read(name).decode())
                except (SyntaxError, ValueError, RecursionError):
                    unparsable += 1
        return found, unparsable


def build(folder: Path, wheels: Path) -> None:
    """Write `train.jsonl`, `validation.jsonl`, `test.jsonl` and the manifest from a folder of wheels.

    A function that was seen before, its own name apart, is left out; training comes first, so
    nothing that is held out is in training. Raises ConfigError if a wheel's licence is not
    permissive.
    """
    found = sorted((Wheel(path) for path in wheels.glob("*.whl")), key=_training_first)
    seen: set[str] = set()
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    rows = []
    for wheel in found:
        if not wheel.is_permissive:
            raise ConfigError(f"{wheel.path.name}: the licence is {wheel.licence!r}; leave it out")
    for wheel, (functions, unparsable) in zip(found, _of_all(found), strict=True):
        new = [text for text in functions if _add(nameless(text), seen)]
        texts[_split(wheel)] += new
        rows.append(
            {
                "distribution": wheel.name,
                "version": wheel.version,
                "licence": wheel.licence,
                "split": _split(wheel),
                "functions": len(new),
                "unparsable_files": unparsable,
            }
        )
        log.info("%s: %d functions", wheel.path.name, len(new))
    for split, written in texts.items():
        lines = "".join(json.dumps(text) + "\n" for text in written)
        write_text(folder / f"{split}.jsonl", lines)
    counts = Counter({split: len(written) for split, written in texts.items()})
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    write_json(folder / MANIFEST, {"python": python, "functions": counts, "distributions": rows})


def read(folder: Path, split: Split) -> list[str]:
    """The functions of one split. Raises ConfigError if the corpus has not been built there."""
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        raise ConfigError(
            f"{path} does not exist: `python -m train.code_corpus --folder {folder}` builds it"
        )
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_corpus(folder: Path = Path("runs/code/corpus"), wheels: Path | None = None) -> None:
    """Fetch the pinned wheels and build the corpus from them.

    Args:
        folder: where the functions and the manifest are written.
        wheels: where the wheels are kept; inside the folder if not given.
    """
    kept = folder / "wheels" if wheels is None else wheels
    download(kept)
    build(folder, kept)


def _of_all(wheels: list[Wheel]) -> Iterator[tuple[list[str], int]]:
    with ProcessPoolExecutor() as pool:
        yield from pool.map(Wheel.functions, wheels)


def _is_metadata(name: str) -> bool:
    return name.count("/") == 1 and name.endswith(".dist-info/METADATA")


def _split(wheel: Wheel) -> Split:
    return HELD_OUT.get(wheel.name, "train")


def _training_first(wheel: Wheel) -> tuple[int, str]:
    return SPLITS.index(_split(wheel)), wheel.name


def _add(key: str, seen: set[str]) -> bool:
    """Whether the key is new; it is not afterwards."""
    new = key not in seen
    seen.add(key)
    return new
