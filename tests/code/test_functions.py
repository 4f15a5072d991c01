"""Which functions of a source are taken, and in what form."""

import ast
from pathlib import Path

import pytest

import dlmjoint
from dlmjoint.code.functions import CHARACTERS, MAX_LINES, nameless, short_functions

SOURCE = '''
import os

def documented(first, second = 'x'):  # a comment
    """What it does."""
    return  first+second * 2

class Holder:
    @property
    def value(self):
        try:
            def inner(arguments):
                """Only this, so nothing is left of it."""
        except KeyError:
            raise
        return inner

    async def wait(self): await self.value("long enough to be kept")

def tiny(): pass

def foreign():
    return 'ä is not in ASCII, so this one is left out'
'''


def test_functions_are_written_the_one_way_ast_unparse_writes_them() -> None:
    found = list(short_functions(SOURCE))
    assert found[0] == "def documented(first, second='x'):\n    return first + second * 2"
    assert found[-1] == "async def wait(self):\n    await self.value('long enough to be kept')"


def test_nested_functions_count_and_comments_docstrings_and_other_scripts_do_not() -> None:
    heads = [text.split("(")[0].split("\n")[-1] for text in short_functions(SOURCE)]
    assert heads == ["def documented", "def value", "def inner", "async def wait"]
    joined = "\n".join(short_functions(SOURCE))
    assert "comment" not in joined
    assert "What it does" not in joined
    assert joined.isascii()


def test_every_function_found_in_this_package_is_short_and_parses() -> None:
    sources = [path.read_text() for path in Path(dlmjoint.__file__).parent.glob("*.py")]
    found = [text for source in sources for text in short_functions(source)]
    assert len(found) > 20
    for text in found:
        assert ast.unparse(ast.parse(text)) == text
        assert len(text) in CHARACTERS
        assert len(text.splitlines()) <= MAX_LINES


def test_python_2_is_refused() -> None:
    with pytest.raises(SyntaxError):
        list(short_functions("print 'two'"))


def test_copies_under_another_name_are_copies() -> None:
    body = "(self):\n    return self.def_count"
    assert nameless("@property\ndef one" + body) == nameless("@property\ndef other" + body)
    assert nameless("def one" + body) != nameless("def one(self):\n    return self.count")
