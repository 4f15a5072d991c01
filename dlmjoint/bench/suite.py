"""The contract of a suite. A new suite is a new file here."""

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table

import dlmjoint.bench
from dlmjoint.bench.table import table_of
from dlmjoint.errors import ConfigError

TINY = "checkpoints/tiny-dream"
TINY_DEEP = f"{TINY}:28"
"""As many layers as Dream-7B has: a sampler pass is a twenty-fourth of a base forward, as it is there,
and not a third."""


@dataclass(frozen=True)
class Setting:
    """What the command was asked for."""

    models: list[str]
    batch_sizes: list[int]
    lengths: list[int]
    forwards: int
    repeats: int
    device: str
    dtype: str
    workdir: Path
    minutes: float = 8
    """After which nothing more is begun; of the suite that is bounded by time."""


class Suite(ABC):
    """Things measured together in one run."""

    name: ClassVar[str]
    """As the command line has it."""
    batch_sizes: ClassVar[tuple[int, ...]] = (16,)
    """Where the command names none."""
    lengths: ClassVar[tuple[int, ...]] = (128,)
    """Where the command names none."""
    full_size: ClassVar[tuple[str, ...]] = ("dream-7b",)
    """Models on a GPU, where the command names none."""
    on_cpu: ClassVar[tuple[str, ...]] = (TINY,)
    """Models without one, where the command names none."""

    @abstractmethod
    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """Yield one JSON-able record per point measured; `note` says what is going on."""

    def table(self, records: Sequence[Mapping[str, Any]]) -> Table:
        """The records as the command shows them."""
        return table_of(records)


def find_suite(name: str) -> Suite:
    """The suite of this name, of all in this package. Raises ConfigError for an unknown one."""
    found = {}
    for module in pkgutil.iter_modules(dlmjoint.bench.__path__):
        for member in vars(importlib.import_module(f"dlmjoint.bench.{module.name}")).values():
            if inspect.isclass(member) and issubclass(member, Suite) and hasattr(member, "name"):
                found[member.name] = member
    if name not in found:
        raise ConfigError(f"there is no suite {name!r}; known: {sorted(found)}")
    return found[name]()
