"""Running a program that a model wrote, against its tests, so that it does no harm.

Every run is a process of its own with an empty temporary folder, limits on CPU time, wall time,
memory and files, and an environment that holds nothing of the user's. Two walls stand around it:

* **Linux namespaces** (`Limits.namespaces`): no network device, no process outside is visible, all
  that the program started dies with it, and every file system is read-only but for the folder.
* **an audit hook** (PEP 578), always: whatever opens a socket, starts a process, loads a C library
  or writes outside of the folder ends the run as failed. Code of C modules can get around it.

What this is not: a virtual machine. The program runs on the user's kernel and may read the user's
files (it cannot send them anywhere). Where namespaces are off, only the hook stands between a
hostile program and the network. And a program written *against this file* - one that looks for the
pipe the token waits in, or returns objects equal to everything - can pass tests it should not.
Ending early does not: `sys.exit(0)`, `os._exit(0)` and printing are failures.
"""

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dlmjoint.errors import ConfigError

CHILD = Path(__file__).with_name("sandboxed.py")
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # sets have one order: a grade is the same the next time
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",  # threads of a library would use up the memory limit
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use."""

    seconds: float = 20.0
    """Wall time."""
    cpu: int = 5
    """CPU time, in seconds."""
    memory: int = 1 << 30
    """Address space of a process, in bytes."""
    disk: int = 1 << 24
    """Of any file, and with namespaces of its folder, in bytes."""
    namespaces: bool = True
    """Isolate by Linux namespaces as well; false relies on the audit hook alone, for machines and
    containers that do not allow them."""

    def __post_init__(self) -> None:
        for name in ("seconds", "cpu", "memory", "disk"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected more than 0")


@dataclass(frozen=True)
class Outcome:
    """How a program's tests ended."""

    passed: bool
    parsed: bool
    """Whether it was a program at all."""
    reason: str
    """In words."""


def check(limits: Limits) -> None:
    """Raises ConfigError where programs cannot be run within these limits."""
    if sys.platform != "linux":
        raise ConfigError(f"programs are run on Linux only, this is {sys.platform}")
    outcome = _check(limits)
    if not outcome.passed:
        raise ConfigError(f"an empty program fails within these limits: {outcome.reason}")


@cache
def _check(limits: Limits) -> Outcome:
    return run("", "", limits)


def run(program: str, tests: str, limits: Limits) -> Outcome:
    """Whether all of `tests` ran to its end behind `program`, both Python.

    Raises ConfigError if the kernel does not allow what `limits` asks for.
    """
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        finished, said = _run({"program": program, "tests": tests}, token, limits, folder)
    lines = [_parsed(line) for line in said.splitlines()]
    facts: dict[str, Any] = {key: value for line in lines for key, value in line.items()}
    if "unavailable" in facts and "ready" not in facts:
        raise ConfigError(
            f"this system does not allow namespaces ({facts['unavailable']}): run where they are "
            "allowed, or set limits.namespaces to false and rely on the audit hook alone"
        )
    if not lines:
        raise ConfigError(f"{sys.executable} does not start {CHILD} in {limits.seconds:g} s")
    return _outcome(facts, token, limits, finished)


def _run(code: dict[str, str], token: str, limits: Limits, folder: str) -> tuple[bool, bytes]:
    """Run the child until it ends or its time is over; false in the latter case. And what it said."""
    waiting, writer = os.pipe()
    os.write(writer, token.encode())
    os.close(writer)
    with tempfile.TemporaryFile() as job, tempfile.TemporaryFile() as result:
        job.write(json.dumps(code | asdict(limits) | {"token": waiting, "folder": folder}).encode())
        job.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-s", "-P", "-B", str(CHILD)],
            stdin=job,
            stdout=result,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT | {"HOME": folder, "TMPDIR": folder},
            pass_fds=(waiting,),
            start_new_session=True,
        )
        os.close(waiting)
        finished = _ended(child, limits.seconds)
        result.seek(0)
        return finished, result.read()


def _ended(child: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the child ends in time. Its group is killed, and what has left the group dies with
    its namespace; only then is it waited for: until then no other group can have its number."""
    file = os.pidfd_open(child.pid)
    poll = select.poll()
    poll.register(file, select.POLLIN)
    try:
        return bool(poll.poll(1000 * seconds))
    finally:
        os.close(file)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _parsed(line: bytes) -> dict[str, Any]:
    """A line of the result; a program may have written there, which says nothing."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _outcome(facts: dict[str, Any], token: str, limits: Limits, finished: bool) -> Outcome:
    stage, error = facts.get("stage"), facts.get("error")
    if facts.get("token") == token:
        return Outcome(True, True, "all tests passed")
    if not finished:
        return Outcome(False, True, f"ran for more than {limits.seconds:g} s")
    if stage == "parse":
        return Outcome(False, False, f"does not parse: {error}")
    if stage == "refused":
        return Outcome(False, True, f"refused: {error}")
    if stage in ("program", "tests"):
        where = "before its tests" if stage == "program" else "in its tests"
        return Outcome(False, True, f"{error}, {where}")
    # The limit counts ticks, each to whoever runs then: on busy cores that may be more than was used.
    if facts.get("code") == -signal.SIGKILL and facts.get("cpu", 0.0) >= limits.cpu / 2:
        return Outcome(False, True, f"used more than {limits.cpu} s of CPU time")
    return Outcome(False, True, f"ended before its tests did, with code {facts.get('code')}")
