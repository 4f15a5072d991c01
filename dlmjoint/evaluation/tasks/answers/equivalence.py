"""Whether two answers written in LaTeX are the same, whatever their notation.

Equal texts are, once blanks, dollar and per cent signs are left out. Else math-verify (sympy)
decides: `\\frac{1}{2}` is 0.5, `x=5` is 5, `(x+1)^2` is `x^2+2x+1`, pi is not 3.14159. It works in a
process of its own, since an answer such as `9^{9^{9^9}}` would take all time and memory.
"""

import atexit
import json
import os
import select
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from dlmjoint.errors import ConfigError

WORKER = Path(__file__).with_name("compared.py")
SECONDS = 10.0
"""Given to one comparison."""
START = 120.0
"""Seconds given to the worker to import its library, on a busy machine."""
IGNORED = str.maketrans("", "", " \t\n$%")


def check() -> None:
    """Raises ConfigError if the library is not there."""
    if find_spec("math_verify") is None:
        raise ConfigError(
            "answers in LaTeX are compared by math-verify: pip install dlmjoint[eval]"
        )


@lru_cache(maxsize=1 << 14)
def equal(reference: str, answer: str) -> bool | None:
    """Whether the answers are the same; None if that was not found out in time or in memory."""
    plain = [
        text.replace("\\$", "").replace("\\%", "").translate(IGNORED).removesuffix(".")
        for text in (reference, answer)
    ]
    return True if plain[0] == plain[1] else _WORKER.ask(plain)


class _Worker:
    """A process that compares, started when first needed and again after one that had to be killed."""

    process: subprocess.Popen[str] | None = None
    owner: int = 0
    """The process that started it: one forked from that starts its own, or answers would mix."""

    def ask(self, pair: list[str]) -> bool | None:
        """Its answer; None if it takes too long or dies."""
        process = self._started()
        assert process.stdin
        process.stdin.write(json.dumps(pair) + "\n")
        process.stdin.flush()
        same = _heard(process, SECONDS)
        if same is None:
            self.end()
        return same

    def end(self) -> None:
        """Kill the process, if there is one of ours."""
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.communicate()
        self.process = None

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None or self.owner != os.getpid():
            check()
            self.owner = os.getpid()
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            if not _heard(self.process, START):
                self.end()
                raise ConfigError(f"{WORKER} does not start: run it by itself to see why")
        return self.process


def _heard(process: subprocess.Popen[str], seconds: float) -> bool | None:
    """What the process says next; None if it says nothing in time, or has ended."""
    assert process.stdout
    ready = select.select([process.stdout], [], [], seconds)[0]
    line = process.stdout.readline() if ready else ""
    return json.loads(line) if line else None


_WORKER = _Worker()
atexit.register(_WORKER.end)
