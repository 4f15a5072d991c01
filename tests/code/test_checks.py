"""What a text says when it is read as Python."""

import pytest

from dlmjoint.code.checks import Reading, parsed, read

SOUND = (
    "def scaled(self, value, *rest, by=2, **more):\n    return [value * by, rest, more, sum(rest)]"
)


def test_a_sound_function_defines_and_uses_all_its_names() -> None:
    assert read(SOUND) == Reading(parses=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def f(x):\n    return (x",
        "def f(x):\nreturn x",
        "x = 1",
        "def f(): pass\ndef g(): pass",
        "def f():\n    return '\0'",
        "def f(): return " + "(" * 500 + ")" * 500,
    ],
)
def test_what_is_not_one_function_does_not_parse(text: str) -> None:
    assert parsed(text) is None
    assert read(text) == Reading(parses=False)


def test_an_invalid_escape_is_a_matter_of_taste() -> None:
    assert read("def f(x):\n    return x + '\\d'").parses


def test_names_from_nowhere_are_told() -> None:
    text = "@wraps(f)\ndef g(x, y=DEFAULT):\n    np.add(x, y).total\n    return len(z)"
    assert read(text).undefined == ("DEFAULT", "f", "np", "wraps", "z")


BINDINGS = """def f(path):
    import os.path as p, sys
    global counter
    with open(path) as file, (yield) as (first, *others):
        lines = [line for line in file if (found := line)]
    for number, _ in enumerate(lines):
        number += 1
    try:
        def inner(a, /, b): return inner(a, b)
    except (OSError, KeyError) as error:
        class Local: pass
        raise Local from error
    match lines:
        case [head, *tail] | {'k': head, **tail}:
            return head, tail
    return p, sys, counter, first, others, found, number, (lambda q: q)
"""


def test_every_kind_of_binding_defines_its_name() -> None:
    assert read(BINDINGS) == Reading(parses=True)


def test_unused_arguments_are_told_but_for_receivers_and_underscores() -> None:
    text = "def f(self, used, idle, _, *args, flag=True, **kwargs):\n    return used + len(kwargs)"
    assert read(text).unused == ("args", "flag", "idle")


def test_an_argument_used_in_its_own_signature_alone_is_unused() -> None:
    assert read("def f(kind: kind=kind):\n    pass").unused == ("kind",)
