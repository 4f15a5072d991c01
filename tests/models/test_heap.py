"""What loading a base does for a CPU process's memory."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import CHECKPOINTS

PROGRAM = """
import ctypes, json, sys
import torch
from dlmjoint.models.load import load_base

FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
load_base(sys.argv[1])
before = libc.mallinfo2()
arrays = [torch.empty(25 << 20, dtype=torch.uint8) for _ in range(4)]
during = libc.mallinfo2()
arrays.clear()
after = libc.mallinfo2()
print(json.dumps({"mapped": during.hblks - before.hblks, "given_back": during.arena - after.arena}))
"""


def _told(**environment: str) -> dict[str, int]:
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(CHECKPOINTS / "tiny-dream")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return json.loads(told.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="about glibc"
)
def test_freed_arrays_stay_with_the_process_unless_the_environment_says_otherwise() -> None:
    assert _told() == {"mapped": 0, "given_back": 0}
    assert _told(MALLOC_MMAP_THRESHOLD_="1000000")["mapped"] == 4
