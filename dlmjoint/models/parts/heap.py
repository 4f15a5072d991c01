"""Memory that a process keeps."""

import ctypes
import os
import sys

BLOCK, TOP = 32 << 20, 256 << 20
"""Bytes: blocks below the first lie on the heap, the most that glibc chooses by itself; of the heap's
free top it keeps up to the second, four times what it chooses beside the first."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed() -> None:
    """Let a CPU process keep freed memory for its next arrays (`mallopt(3)`).

    By default glibc gives back what is free at the top of its heap beyond twice the largest block
    freed so far, and the arrays of the next forward are faulted in again, page by page. Whether that
    happens hangs on where the heap begins: of equal decodings some took no such fault and some
    190,000, and up to two thirds longer. Nothing is done where there is no glibc, or where the
    environment has a say (`MALLOC_…_THRESHOLD_`).
    """
    if any(name.startswith("MALLOC_") and name.endswith("_THRESHOLD_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, BLOCK)
        mallopt(M_TRIM_THRESHOLD, TOP)
