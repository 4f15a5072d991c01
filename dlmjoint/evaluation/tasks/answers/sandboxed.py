"""The child's side of `sandbox`: run as a script, by path, with nothing of ours imported.

Two processes: this one makes the namespaces and waits; its child is limited, runs the program and
its tests, and says how they ended. Results go to the file that was standard output.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

REFUSED = (
    *("socket.", "subprocess.", "pty.", "os.system", "os.exec", "os.fork", "os.posix_spawn"),
    *("os.spawn", "os.kill", "os.link", "os.symlink", "os.rename", "os.remove", "os.rmdir"),
    *("os.chmod", "os.chown", "os.truncate", "os.utime", "os.setxattr", "os.removexattr"),
    *("shutil.", "fcntl.", "ctypes.dlsym", "ctypes.call_function", "signal.pthread_kill"),
)
"""Audit events (their first letters) that end the run; docs.python.org/3/library/audit_events."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NAMESPACES = 0x00020000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
"""clone(2): mounts, System V objects, users, processes, network."""
MOUNT_SETATTR = 442
"""Number of the system call, the same on every architecture; Linux 5.12."""
MOST_PROCESSES = 64
MOST_FILES = 64
PARENT_DIED = 1
"""prctl(2): PR_SET_PDEATHSIG."""


def main() -> None:
    """Read the job, make the namespaces, run it in a child, and say how the child ended."""
    job = json.loads(sys.stdin.buffer.read())
    result = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if job["namespaces"]:
            isolate(libc, job["folder"], job["disk"])
    except OSError as error:
        say(result, {"unavailable": f"{error.filename or ''} {error.strerror}".strip()})
        return
    os.chdir(job["folder"])
    say(result, {"ready": True})
    child = os.fork()
    if child == 0:
        libc.prctl(PARENT_DIED, signal.SIGKILL)
        limit(job)
        execute(job, result)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    say(result, {"code": code, "cpu": used.ru_utime + used.ru_stime})


def say(
    result: int,
    what: dict[str, object],
    write: Callable[[int, bytes], int] = os.write,
    dumps: Callable[[object], str] = json.dumps,
) -> None:
    """One line of the result. A program may put others in the place of `os.write`."""
    write(result, dumps(what).encode() + b"\n")


def isolate(libc: ctypes.CDLL, folder: str, disk: int) -> None:
    """No network, no other processes, and no file that can be written but in `folder`, an empty
    file system of `disk` bytes in memory. Raises OSError where the kernel does not allow it."""

    def demand(result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), what)

    user, group = os.getuid(), os.getgid()
    demand(libc.unshare(NAMESPACES), "unshare:")
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123  (starts without pathlib)
            file.write(line)
    private = ctypes.c_ulong(0x40000 | 0x4000)  # MS_PRIVATE | MS_REC: nothing gets out
    demand(libc.mount(b"none", b"/", None, private, None), "mount /:")
    # Read-only, no set-uid programs, no devices: opening a disk would not be writing to a file.
    attributes = struct.pack("QQQQ", 1 | 2 | 4, 0, 0, 0)
    size = ctypes.c_size_t(len(attributes))
    recursive = 0x8000  # AT_RECURSIVE; -100 is AT_FDCWD
    demand(libc.syscall(MOUNT_SETATTR, -100, b"/", recursive, attributes, size), "mount_setattr:")
    memory, flags = f"size={disk}".encode(), ctypes.c_ulong(2 | 4)
    demand(libc.mount(b"tmpfs", folder.encode(), b"tmpfs", flags, memory), f"mount {folder}:")


def limit(job: dict[str, Any]) -> None:
    """What one process may use. Soft and hard are the same: none can be raised again, and the end
    of CPU time is a SIGKILL, which the first process of a namespace cannot ignore."""
    limits = {
        resource.RLIMIT_AS: job["memory"],
        resource.RLIMIT_CPU: job["cpu"],
        resource.RLIMIT_FSIZE: job["disk"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: MOST_FILES,
    }
    if job["namespaces"]:  # without, all of the user's processes count
        limits[resource.RLIMIT_NPROC] = MOST_PROCESSES
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))


def execute(job: dict[str, Any], result: int) -> NoReturn:
    """Run the program, then its tests. The token, which says that the last test has ended, is in
    no variable before: it waits in a pipe."""
    token, read, tell, leave, run = job["token"], os.read, say, os._exit, exec
    module = ModuleType("program")
    sys.modules["program"] = module  # dataclasses look their module up

    def end(stage: str, error: str) -> NoReturn:
        tell(result, {"stage": stage, "error": error[:500]})
        leave(1)

    stage = "parse"
    try:
        program = compile(job["program"], "<program>", "exec")
        tests = compile(job["tests"], "<tests>", "exec")
        sys.addaudithook(watcher(job["folder"], end))
        stage = "program"
        run(program, module.__dict__)
        stage = "tests"
        run(tests, module.__dict__)
    except BaseException as error:  # noqa: BLE001  (whatever ends the tests early is a failure)
        end(stage, f"{type(error).__name__}: {error}".strip().removesuffix(":"))
    tell(result, {"token": read(token, 64).decode()})
    leave(0)


def watcher(
    folder: str, end: Callable[[str, str], NoReturn]
) -> Callable[[str, tuple[Any, ...]], None]:
    """What ends the run at an event that no solution of a programming task has. Everything it
    needs is its own: the names of this file can be reached through `sys.modules`."""
    refused, writes, real, decode = REFUSED, WRITES, os.path.realpath, os.fsdecode
    inside = real(folder) + os.sep

    def watch(event: str, given: tuple[Any, ...]) -> None:
        if event.startswith(refused):
            end("refused", event)
        if event == "ctypes.dlopen" and given[0] is not None:
            end("refused", f"{event} of {given[0]}")
        if event in ("open", "os.mkdir"):
            path: Any = given[0]
            flags = given[2] if event == "open" else writes
            if not isinstance(path, int) and flags & writes:
                where = real(decode(path))
                if not where.startswith(inside):
                    end("refused", f"writing to {where}")

    return watch


if __name__ == "__main__":
    main()
