"""How shapes and types are verified in tests: by `check`, on the calls that `Sampled` does not skip."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""beartype, an int being a fine float."""
ALL, STRIDE = 2_000, 13
"""So many calls of a test, all its cases together, are all checked, and of those after them one in so
many."""


class Sampled:
    """In the place of jaxtyping's switch, which it reads at every call: whether this one is skipped.

    A check takes longer than most calls. In a sweep over hundreds of decodes, which calls the same
    few functions a hundred thousand times, checking all of them took half of the time.
    """

    def __init__(self) -> None:
        self.calls = 0

    def __bool__(self) -> bool:
        self.calls += 1
        return self.calls > ALL and self.calls % STRIDE != 0
