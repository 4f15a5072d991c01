"""A headless Chromium that tests talk to over two pipes (the DevTools protocol): no driver and no
Python package is needed, only the browser."""

import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0
"""Seconds until an answer is given up."""
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--no-first-run", "--remote-debugging-pipe")  # fmt: skip
"""The sandbox needs rights that a container seldom gives, and the page is our own."""


def find_browser() -> str | None:
    """Where one is installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page in one browser process, which ends with the `with` block."""

    def __init__(self, program: str, profile: Path) -> None:
        self.program, self.profile = program, profile
        self._sent, self._session, self._buffer = 0, None, b""

    def __enter__(self) -> "Browser":
        command_end, self._commands = os.pipe()
        self._answers, answer_end = os.pipe()
        # The browser reads from descriptor 3 and writes to 4.
        redirections = [
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, _high(command_end), 3),
            (os.POSIX_SPAWN_DUP2, _high(answer_end), 4),
        ]
        arguments = [self.program, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"]
        self.pid = os.posix_spawn(self.program, arguments, os.environ, file_actions=redirections)
        os.close(redirections[2][1])
        os.close(redirections[3][1])
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._commands)  # the browser ends when nobody can command it any more
        until = time.monotonic() + PATIENCE
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(0.05)
        os.close(self._answers)

    def open(self, url: str) -> None:
        """Load a page and wait until its scripts have run."""
        self.send("Page.navigate", url=url)
        ready = f"document.readyState === 'complete' && location.href === {json.dumps(url)}"
        self.wait_for(ready)

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Return once an expression is true."""
        until = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            assert time.monotonic() < until, f"never true: {expression}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press and release a key, as a reader would: whatever has the focus gets it."""
        codes = {"End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
        for kind in ("rawKeyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
            )

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """The result of one protocol command."""
        self._sent += 1
        message: dict[str, object] = {"id": self._sent, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._sent:
            pass  # events nobody asked for
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            part = os.read(self._answers, 1 << 16)
            assert part, "the browser has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def _high(descriptor: int) -> int:
    """The same pipe under a number above 4, so that no redirection overwrites it."""
    spare = [descriptor]
    while spare[-1] <= 4:
        spare.append(os.dup(spare[-1]))
    for number in spare[:-1]:
        os.close(number)
    return spare[-1]
