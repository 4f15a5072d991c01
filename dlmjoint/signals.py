"""What a command does when it is asked to end."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from torch.distributed import get_rank, is_available, is_initialized

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Variables by which torchrun, Lightning and SLURM tell a process its number, the best first."""


class Asked(SystemExit):
    """The process was asked to end by a signal; its status is 128 and the signal's number."""


@contextmanager
def ending_on_request(told: str | None = None) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the process as an error would, with status 143 or 130, so that what it
    holds is given back: claims, temporary folders. It says `told` then, in one line on stderr: what
    is kept, and how to go on.

    A process that was started with SIGINT ignored goes on ignoring it: shells start those behind `&`
    in a script so, since Ctrl-C is meant for what is in front. Lightning's own handler of SIGTERM
    only leaves a note that prediction never reads, after a broadcast to processes that may wait
    elsewhere.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Asked(128 + number)

    if threading.current_thread() is not threading.main_thread():  # signals are not for it
        yield
        return
    before = {number: signal.signal(number, end) for number in asked_by()}
    try:
        yield
    except Asked:
        if told is not None and _is_first():
            sys.stderr.write(f"dlmjoint: asked to end: {told}\n")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_first() -> bool:
    """Whether this process is the one that speaks, of those that were started together."""
    if is_available() and is_initialized():
        return get_rank() == 0
    return int(next((os.environ[name] for name in RANKS if name in os.environ), 0)) == 0


def asked_by() -> set[signal.Signals]:
    """The signals that ask a process to end: SIGTERM, and SIGINT unless it was started ignoring it."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    return {signal.SIGTERM} if ignored else {signal.SIGTERM, signal.SIGINT}
