"""Pickles of others, read without running anything they name.

A torch checkpoint is a pickle, and a pickle is a program: it may call any function of any module.
"""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch._utils

from dlmjoint.errors import LoadError

REBUILDING = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
"""The functions of `torch._utils` that make a tensor of a stored storage."""


class Inert:
    """Stands for every foreign class and function in a pickle: whatever is done to it, nothing
    happens."""

    def __new__(cls, *args: object, **kwargs: object) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """For pickled lists."""

    def extend(self, items: object) -> None:
        """For pickled lists."""

    def add(self, item: object) -> None:
        """For pickled sets."""


class TensorUnpickler(pickle.Unpickler):
    """Makes tensors and plain containers, and `Inert` of everything else.

    `torch.load` derives its own unpickler from this one and asks here for all but storages.
    """

    def find_class(self, module_name: str, global_name: str) -> Any:
        """What a name in the pickle stands for; no module is imported."""
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module_name == "torch._utils" and global_name in REBUILDING:
            return getattr(torch._utils, global_name)
        return Inert


def read_inert(path: Path) -> Any:
    """The content of a file that `torch.save` wrote: plain values, and tensors behind memory maps,
    so that what is not used is not read.

    Raises LoadError if it is no such file, cut off or damaged.
    """
    if not path.is_file():
        raise LoadError(f"there is no checkpoint file {path}")
    if not zipfile.is_zipfile(path):  # one that was cut off has lost its index
        raise LoadError(f"{path} is no torch checkpoint, or it is cut off")
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise LoadError(f"{path} is a TorchScript program, no checkpoint")
    try:
        return torch.load(
            path,
            map_location="cpu",
            mmap=True,
            weights_only=False,  # torch's own restricted unpickler refuses what `Inert` replaces
            pickle_module=SimpleNamespace(Unpickler=TensorUnpickler, __name__="pickle"),
        )
    except (
        pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, TypeError,
        AttributeError, LookupError, AssertionError,
    ) as error:  # fmt: skip
        raise LoadError(f"{path} is no torch checkpoint, or damaged: {error}") from error
