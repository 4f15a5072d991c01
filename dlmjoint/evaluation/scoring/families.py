"""Families of decoders: those of one name but for their K."""

import re
from collections.abc import Iterable


def family(decoder: str) -> str:
    """The name without its K: `joint-k4` is of the family `joint`, `joint-k4+cache` of
    `joint+cache`."""
    return re.sub(r"-k\d+", "", decoder, count=1)


def families(names: Iterable[str], exact: str | None) -> dict[str, list[str]]:
    """The decoders of every family of two or more, the exact one first."""
    found: dict[str, list[str]] = {}
    for name in names:
        if family(name) != name:
            found.setdefault(family(name), []).append(name)
    if exact is not None and family(exact) == exact:
        found = {key: [exact, *members] for key, members in found.items()}
    return {key: members for key, members in found.items() if len(members) > 1}
