"""What loading a base does for a CPU process's memory."""

import ctypes
import sys
from types import SimpleNamespace

import pytest
import torch

from dlmjoint.models.load import load_base
from dlmjoint.models.parts import heap
from tests.conftest import GOLDEN

FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class Info(ctypes.Structure):
    """`struct mallinfo2`: bytes of the heap, and blocks that lie outside of it, among others."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS.split()]


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="about glibc"
)
def test_arrays_freed_after_a_base_was_loaded_stay_with_the_process() -> None:
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Info
    load_base(GOLDEN / "dream")
    before = libc.mallinfo2()
    arrays = [torch.empty(25 << 20, dtype=torch.uint8) for _ in range(4)]
    during = libc.mallinfo2()
    arrays.clear()
    after = libc.mallinfo2()
    assert during.hblks == before.hblks  # all on the heap
    assert after.arena == during.arena >= 100 << 20


def _asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    asked: list[tuple[int, int]] = []
    libc = SimpleNamespace(mallopt=lambda what, value: asked.append((what, value)))
    monkeypatch.setattr(heap, "ctypes", SimpleNamespace(CDLL=lambda name: libc))
    monkeypatch.setattr(sys, "platform", "linux")
    heap.keep_freed()
    return asked


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"])
def test_the_environments_own_limits_have_precedence(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for other in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(other, raising=False)
    with monkeypatch.context() as patch:
        assert len(_asked(patch)) == 2
    monkeypatch.setenv(name, "1000000")
    assert _asked(monkeypatch) == []
