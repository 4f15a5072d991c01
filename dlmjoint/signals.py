"""What a command does when it is asked to end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ending_on_request() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the process as an error would, with status 143 or 130, so that what it
    holds is given back: claims, temporary folders.

    A process that was started with SIGINT ignored goes on ignoring it: shells start those behind `&`
    in a script so, since Ctrl-C is meant for what is in front. Lightning's own handler of SIGTERM
    only leaves a note that prediction never reads, after a broadcast to processes that may wait
    elsewhere.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # signals are not for it
        yield
        return
    asked = (signal.SIGTERM, signal.SIGINT)
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    before = {number: signal.signal(number, end) for number in asked[: 1 if ignored else 2]}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
