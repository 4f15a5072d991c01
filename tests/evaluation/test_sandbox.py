"""Programs that a model wrote: what passes, what fails, and that nothing outside is touched."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.tasks.answers import sandbox
from dlmjoint.evaluation.tasks.answers.sandbox import CHILD, Limits

OUTSIDE = str(Path(tempfile.gettempdir()) / "left-behind")
SMALL = {"seconds": 5.0, "cpu": 1, "memory": 1 << 28}


def _namespaces() -> bool:
    try:
        sandbox.check(Limits())
    except ConfigError:
        return False
    return True


NEED_NAMESPACES = pytest.mark.skipif(not _namespaces(), reason="no user namespaces on this system")


@pytest.fixture(params=[pytest.param(True, marks=NEED_NAMESPACES), False], ids=["spaces", "hook"])
def limits(request: pytest.FixtureRequest) -> Limits:
    """With Linux namespaces, and with the audit hook alone."""
    return Limits(**SMALL, namespaces=request.param)


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither a process nor a file."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = _children()
    yield
    assert _children() == before
    assert not list(tmp_path.iterdir())


def _children() -> set[str]:
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}


def test_a_program_passes_if_all_tests_run_to_their_end(limits):
    program = "def double(x):\n    return 2 * x\n"
    right = sandbox.run(program, "assert double(2) == 4\nassert double(0) == 0\n", limits)
    assert (right.passed, right.parsed, right.reason) == (True, True, "all tests passed")
    wrong = sandbox.run(program, "assert double(2) == 4\nassert double(1) == 3, 'no'\n", limits)
    assert (wrong.passed, wrong.parsed) == (False, True)
    assert wrong.reason == "AssertionError: no, in its tests"


def test_the_end_of_cpu_time_is_known_where_ticks_were_counted_that_were_anothers():
    facts = {"ready": True, "code": -signal.SIGKILL, "cpu": 0.7}
    outcome = sandbox._outcome(facts, "token", Limits(cpu=1), finished=True)
    assert outcome.reason == "used more than 1 s of CPU time"


def test_what_is_no_python_is_told_apart_from_what_fails(limits):
    outcome = sandbox.run("def double(x)", "", limits)
    assert (outcome.passed, outcome.parsed) == (False, False)
    assert outcome.reason.startswith("does not parse: SyntaxError")
    assert sandbox.run("1 // 0", "", limits).parsed


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("while True: pass", "used more than 1 s of CPU time"),
        ("text = []\nwhile True: text.append('x' * 10 ** 6)", "MemoryError"),
        ("x = 'x' * 10 ** 12", "MemoryError"),
        ("def f(n): return f(n + 1)\nf(0)", "RecursionError"),
        ("import os\nwhile True: os.fork()", "refused: os.fork"),
        ("import subprocess\nsubprocess.run(['true'])", "refused: subprocess.Popen"),
        ("import os\nos.system('true')", "refused: os.system"),
        ("import os\nos.execv('/bin/true', ['true'])", "refused: os.exec"),
        ("import os\nos.kill(os.getppid(), 9)", "refused: os.kill"),
        ("import socket\nsocket.socket()", "refused: socket.__new__"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))", "refused: socket."),
        ("import urllib.request as r\nr.urlopen('http://127.0.0.1')", "refused: socket."),
        ("import ctypes\nctypes.CDLL('libc.so.6')", "refused: ctypes.dlopen"),
        ("import ctypes\nctypes.pythonapi.exit", "refused: ctypes.dlsym"),
        (f"open({OUTSIDE!r}, 'w')", f"refused: writing to {OUTSIDE}"),
        ("open('../left-behind', 'a')", "refused: writing to"),
        ("import os\nos.remove('/etc/hostname')", "refused: os.remove"),
        (f"import os\nos.mkdir({OUTSIDE!r})", "refused: writing to"),
        ("input()", "EOFError"),
    ],
)
def test_what_a_solution_never_does_ends_the_run_as_failed(limits, program, reason):
    outcome = sandbox.run(program, "", limits)
    assert not outcome.passed
    assert outcome.reason.startswith(reason)


def test_a_refusal_cannot_be_caught(limits):
    program = "import socket\ntry:\n    socket.socket()\nexcept BaseException:\n    pass\n"
    assert sandbox.run(program, "", limits).reason == "refused: socket.__new__"


@pytest.mark.parametrize(
    "change",
    [
        "sys.modules['__main__'].REFUSED = ()",
        "sys.modules['__main__'].say = print",
        "sys.modules['__main__'].watcher = print",
        "import os; os._exit = os.write = os.read = os.fsdecode = print",
        "import builtins; builtins.exec = builtins.compile = builtins.isinstance = print",
    ],
)
def test_changing_what_the_sandbox_is_made_of_changes_nothing(limits, change):
    outcome = sandbox.run(f"import sys\n{change}\n", "assert False\n", limits)
    assert outcome.reason == "AssertionError, in its tests"
    outcome = sandbox.run(f"import sys, socket\n{change}\nsocket.socket()\n", "", limits)
    assert outcome.reason == "refused: socket.__new__"


def test_a_program_that_waits_is_ended_by_the_wall_time(limits):
    short = Limits(**SMALL | {"seconds": 1.0}, namespaces=limits.namespaces)
    outcome = sandbox.run("import time\ntime.sleep(60)", "", short)
    assert (outcome.passed, outcome.reason) == (False, "ran for more than 1 s")


@pytest.mark.parametrize(
    "ending",
    [
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "import os; os._exit(0)",
        "print('all tests passed'); import os; os._exit(0)",
        "import os; os.write(1, b'passed'); os._exit(0)",
        "quit()",
    ],
)
def test_ending_early_is_not_passing(limits, ending):
    outright = sandbox.run(ending, "assert False\n", limits)
    when_called = sandbox.run(f"def f():\n    {ending}\n", "f()\nassert False\n", limits)
    assert not outright.passed
    assert not when_called.passed


@pytest.mark.parametrize("line", ['{"token": "0"}', '{"token": null}', '{"code": 0}', "[]", "\xff"])
def test_writing_a_result_is_not_passing(limits, line):
    """Every descriptor that is open takes the line; none of them is the token."""
    program = (
        "import os\nfor number in range(3, 20):\n    try:\n"
        f"        os.write(number, {(line + chr(10)).encode()!r})\n    except OSError:\n        pass\n"
        "os._exit(0)\n"
    )
    assert not sandbox.run(program, "assert False\n", limits).passed


def test_a_flood_of_output_is_cut_off(limits):
    program = (
        "import os\nfor number in range(1, 20):\n    try:\n"
        "        while True: os.write(number, b'x' * 2 ** 20)\n    except OSError:\n        pass\n"
    )
    assert not sandbox.run(program, "assert False\n", limits).passed


def test_programs_may_use_their_folder_threads_and_the_standard_library(limits):
    program = (
        "import collections, dataclasses, heapq, math, re, threading, typing\n"
        "@dataclasses.dataclass\nclass Pair:\n    a: int\n    b: int\n"
        "def f():\n    with open('notes', 'w') as file: file.write('x')\n"
        "    thread = threading.Thread(target=f2); thread.start(); thread.join()\n"
        "    return Pair(1, len(open('notes').read()))\ndef f2(): pass\n"
    )
    assert sandbox.run(program, "assert f() == Pair(1, 1)\n", limits).passed


def test_the_users_environment_is_not_there(limits, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "secret")
    tests = "import os\nassert 'SOME_TOKEN' not in os.environ\nassert os.environ['HOME'] == os.getcwd()\n"
    assert sandbox.run("", tests, limits).passed


def test_sets_have_one_order(limits):
    program = "order = ''.join({'a', 'b', 'c', 'd', 'e', 'f'})"
    first = sandbox.run(program, "assert False, order", limits)
    assert first.reason == sandbox.run(program, "assert False, order", limits).reason


ALONE = """
import ctypes, importlib.util, json, os, pathlib, socket, subprocess, sys
spec = importlib.util.spec_from_file_location("sandboxed", sys.argv[1])
sandboxed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sandboxed)
folder, mark = sys.argv[2:]
sandboxed.isolate(ctypes.CDLL(None, use_errno=True), folder, 1 << 20)
if os.fork():
    os.wait()
    raise SystemExit
def tried(action):
    try:
        action()
    except OSError as error:
        return error.strerror
subprocess.Popen(["sleep", mark], start_new_session=True)
print(json.dumps({
    "pid": os.getpid(),
    "connect": tried(lambda: socket.create_connection(("192.0.2.1", 80), 5)),
    "loopback": tried(lambda: socket.create_connection(("127.0.0.1", 80), 5)),
    "inside": tried(lambda: open(folder + "/file", "w").close()),
    "outside": tried(lambda: open(folder + "-not", "w").close()),
    "large": tried(lambda: pathlib.Path(folder, "large").write_bytes(bytes(1 << 21))),
    "device": tried(lambda: open("/dev/null", "w").close()),
    "root": tried(lambda: open("/etc/not-there", "w").close()),
}), flush=True)
"""


@NEED_NAMESPACES
def test_without_the_hook_the_namespaces_hold(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    mark = f"4321.{os.getpid()}"
    arguments = [sys.executable, "-c", ALONE, str(CHILD), str(folder), mark]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=30)
    found = json.loads(done.stdout)
    assert found["pid"] == 1, "no process outside is visible"
    assert found["connect"] == "Network is unreachable"
    assert found["loopback"] in ("Network is unreachable", "Connection refused")
    assert found["inside"] is None
    assert found["outside"] == found["root"] == "Read-only file system"
    assert found["large"] == "No space left on device"
    assert found["device"] == "Permission denied"
    assert not list(folder.iterdir()), "the folder was a file system in memory"
    running = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not [line for line in running if mark.encode() in line], "what it started is gone"


@pytest.mark.parametrize("name", ["seconds", "cpu", "memory", "disk"])
def test_limits_are_positive(name):
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        Limits(**{name: 0})


def test_limits_that_no_program_can_keep_are_refused_before_any_is_run(limits):
    with pytest.raises(ConfigError, match="an empty program fails within these limits"):
        sandbox.check(Limits(memory=1 << 20, namespaces=limits.namespaces))


def test_a_system_without_namespaces_is_told_the_way_out(monkeypatch, tmp_path):
    refusing = CHILD.read_text().replace(
        'demand(libc.unshare(NAMESPACES), "unshare:")', 'demand(libc.unshare(-1), "unshare:")'
    )
    assert "unshare(-1)" in refusing
    child = tmp_path / "sandboxed.py"
    child.write_text(refusing)
    monkeypatch.setattr(sandbox, "CHILD", child)
    with pytest.raises(ConfigError, match=r"unshare: .*set limits.namespaces to false"):
        sandbox.run("", "", Limits(**SMALL))
    child.unlink()


def test_programs_are_run_on_linux_only(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match="on Linux only"):
        sandbox.check(Limits())
