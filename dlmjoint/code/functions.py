"""The short functions of a Python source, in the one form `ast.unparse` gives them."""

import ast
import warnings
from collections.abc import Iterator

MAX_LINES = 14
"""A longer function is left out."""
CHARACTERS = range(30, 261)
"""Lengths that are kept, in characters."""
DOCUMENTED = 4
"""A source function of more than this many times `MAX_LINES` lines is not normalised to be measured:
what its docstring and comments leave would have to be a quarter of it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def short_functions(source: str) -> Iterator[str]:
    """Every short function of a source, nested ones too, normalised.

    Their docstrings and comments go, layout and quotes are `ast.unparse`'s of the running Python, anything
    that is not ASCII is left out. Raises SyntaxError or ValueError if the source is not Python 3.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's sources
        tree = ast.parse(source)
    for node in _functions(tree):
        if _lines(node) > DOCUMENTED * MAX_LINES:
            continue
        text = normalised(node)
        if len(text) in CHARACTERS and text.count("\n") < MAX_LINES and text.isascii():
            yield text


def normalised(node: Function) -> str:
    """A function without its docstring, as `ast.unparse` writes it; `pass` if nothing is left."""
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(node)


def nameless(text: str) -> str:
    """A normalised function with its own name blanked: copies under another name are copies."""
    head, separator, rest = text.partition("def ")
    return head + separator + rest[rest.index("(") :]


def _functions(parent: ast.AST) -> Iterator[Function]:
    """Every function below a node, outer ones first. Only statements hold functions: expressions,
    most of a tree, are not looked into."""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        children = getattr(parent, block, ())
        for node in children if isinstance(children, list) else ():
            if isinstance(node, Function):
                yield node
            yield from _functions(node)


def _lines(node: Function) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1
