"""Pickles of others, read without running anything they name.

A torch checkpoint is a pickle, and a pickle is a program: it may call any function of any module.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import torch
import torch._utils
from torch.serialization import get_unsafe_globals_in_checkpoint

from dlmjoint.errors import LoadError

REBUILDING = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
"""The functions of `torch._utils` that make a tensor of a stored storage."""
UNREADABLE = (
    pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, TypeError,
    AttributeError, LookupError, AssertionError,
)  # fmt: skip
"""What reading a damaged pickle may end in."""


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


class _Listing(pickle.Unpickler):
    """Notes the names a pickle asks for, and hands out nothing but `Inert`."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.names: set[tuple[str, str]] = set()

    def find_class(self, module_name: str, global_name: str) -> Any:
        """See the class."""
        self.names.add((module_name, global_name))
        return Inert


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


def names_in(content: bytes, source: Path) -> set[tuple[str, str]]:
    """The module and name of all that a plain pickle would import.

    Raises LoadError, naming the source, if it is none.
    """
    listing = _Listing(content)
    try:
        listing.load()
    except UNREADABLE as error:
        raise LoadError(f"{source} is damaged: {error}") from error
    return listing.names


def foreign(file: Path | BinaryIO, source: Path) -> set[str]:
    """What a file of `torch.save` would call that torch does not hold for harmless.

    Raises LoadError, naming the source, if it is no such file.
    """
    try:
        return set(get_unsafe_globals_in_checkpoint(file))
    except UNREADABLE as error:
        raise LoadError(f"{source} is no torch checkpoint, or damaged: {error}") from error


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
    except UNREADABLE as error:
        raise LoadError(f"{path} is no torch checkpoint, or damaged: {error}") from error
