"""Every comparison with the paper's way, in one run."""

from collections.abc import Callable, Iterator
from typing import Any

from dlmjoint.bench.decode import Decode
from dlmjoint.bench.fit import Fit
from dlmjoint.bench.generate import Generate
from dlmjoint.bench.kl import KL
from dlmjoint.bench.measure import free_memory
from dlmjoint.bench.on_base import together
from dlmjoint.bench.storage import Storage
from dlmjoint.bench.suite import TINY, TINY_DEEP, Setting, Suite


class All(Suite):
    """Training, the loss, decoding, generation and storage."""

    name = "all"
    on_cpu = (TINY, TINY_DEEP)

    def run(self, setting: Setting, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """The records of all of them."""
        yield from Fit().run(setting, note)
        free_memory()
        yield from KL().run(setting, note)
        free_memory()
        yield from together([Decode(), Generate(), Storage()], setting, note)
