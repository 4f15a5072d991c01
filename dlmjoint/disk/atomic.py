"""Files that are there whole or not at all, and what killed processes leave of them.

What is being written has a name of its own beside its place, which says who writes it; so the next
process to come can tell what is left over from what is under way.
"""

import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOREIGN = 24 * 3600.0
"""Seconds after which what another machine has begun to write is taken for left over: whether its
process lives is not known here."""
_NAME = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.partial")
_under_way: set[Path] = set()


def host() -> str:
    """This machine, and the container on it in which process ids mean something."""
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return f"{platform.node()} {space}".strip()


def is_dead(process: int) -> bool:
    """Whether this machine has no process of that id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, but alive
        return False
    return False


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A hidden name of nothing yet, in the folder of `path`; whatever is made there goes at the end.

    What dead processes left of the same path is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_of(path)
    temporary = path.with_name(
        f".{path.name}.{_here()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.partial"
    )
    _under_way.add(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _under_way.discard(temporary)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write a file to, which takes the place of `path` when the block has ended: a reader
    sees the old file or the new one, never half of one."""
    with beside(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """A folder to write files to, which take their places in `folder` one by one when the block has
    ended, in the order they were written in."""
    with beside(folder) as temporary:
        temporary.mkdir()
        yield temporary
        folder.mkdir(exist_ok=True)
        for file in sorted(temporary.iterdir(), key=lambda file: file.stat().st_mtime_ns):
            os.replace(file, folder / file.name)


def sweep(folder: Path) -> None:
    """Remove what dead processes left half-written of a folder or a file, in it and in all below it."""
    _remove_left_of(folder)
    _remove_left(folder.rglob(".*.partial"))


def _remove_left_of(path: Path) -> None:
    _remove_left(path.parent.glob(f".{_literal(path.name)}.*.partial"))


def _remove_left(found: Iterator[Path]) -> None:
    for path in list(found):
        if _is_left(path):
            _remove(path)


def _is_left(path: Path) -> bool:
    """Is the one who began to write it gone?"""
    said = _NAME.fullmatch(path.name)
    if said is None:
        return False
    if said["host"] != _here():
        with suppress(FileNotFoundError):  # in place by now
            return time.time() - path.stat().st_mtime > FOREIGN
        return False
    process = int(said["process"])
    # In containers that start anew a process has the id of the one before it.
    return path not in _under_way if process == os.getpid() else is_dead(process)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _here() -> str:
    return hashlib.sha256(host().encode()).hexdigest()[:8]


def _literal(name: str) -> str:
    """A name as a pattern that means itself alone."""
    return re.sub(r"([*?[])", r"[\1]", name)
