"""The worker of `equivalence`: run as a script, by path. A line in, a line out."""

import json
import logging
import resource
import sys

from math_verify import LatexExtractionConfig, parse, verify

MEMORY = 4 << 30
"""Bytes of address space: simplifying may use up any amount."""


def main() -> None:
    """Say `true` when ready; answer every line `[reference, answer]` by whether they are the same."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.disable()  # math-verify speaks of limits it does not set; the caller sets them
    say(True)
    for line in sys.stdin:
        reference, answer = json.loads(line)
        say(same(reference, answer))


def say(what: bool) -> None:
    """A line, at once."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def same(reference: str, answer: str) -> bool:
    """Whether two answers in LaTeX have one value. Only the LaTeX reader is used: the one for plain
    expressions evaluates them as Python."""
    gold, target = (
        parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)  # pyright: ignore[reportArgumentType]
        for text in (reference, answer)
    )
    return verify(gold, target, timeout_seconds=None)


if __name__ == "__main__":
    main()
