"""What is costly to compute, computed once: arrays in a run's cache folder."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dlmjoint.disk.atomic import whole


def kept(cache: Path, name: str, of: object, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array computed `of` something before, or now.

    `of` is told apart by its `repr`, so it must say everything the array depends on. Processes may
    ask for one array at a time: each writes a file of its own, the last to finish stays.
    """
    path = cache / f"{name}-{hashlib.sha256(repr(of).encode()).hexdigest()[:16]}.npy"
    if path.exists():
        return np.load(path)
    array = compute()
    with whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
    return array
