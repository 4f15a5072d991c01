"""What can be said of a text by reading it as Python: does it parse, do its names hold together?"""

import ast
import builtins
import warnings
from dataclasses import dataclass

from dlmjoint.code.functions import Function

KNOWN = frozenset(dir(builtins)) | {"__class__", "__file__"}
"""Names that need no definition."""
RECEIVERS = ("self", "cls", "mcs")
"""Arguments that a signature has to have, used or not."""


@dataclass(frozen=True)
class Reading:
    """A text read as one Python function."""

    parses: bool
    """It is one function definition and nothing else."""
    undefined: tuple[str, ...] = ()
    """Names that are read and that nothing in the function defines, sorted: globals of a module it
    may once have had, or slips."""
    unused: tuple[str, ...] = ()
    """Arguments of the function itself that its body never reads, sorted; receivers and those that
    begin with _ left out."""


def read(text: str) -> Reading:
    """How a text reads. Attributes are not looked into; scopes inside the function are one."""
    node = parsed(text)
    if node is None:
        return Reading(parses=False)
    names = [name for name in ast.walk(node) if isinstance(name, ast.Name)]
    loaded = {name.id for name in names if isinstance(name.ctx, ast.Load)}
    defined = {name.id for name in names if not isinstance(name.ctx, ast.Load)}
    for part in ast.walk(node):
        defined |= _defines(part)
    own = {one for one in _arguments(node) if one not in RECEIVERS and not one.startswith("_")}
    body = [name for statement in node.body for name in ast.walk(statement)]
    used = {name.id for name in body if isinstance(name, ast.Name)}
    return Reading(
        parses=True,
        undefined=tuple(sorted(loaded - defined - KNOWN)),
        unused=tuple(sorted(own - used)),
    )


def parsed(text: str) -> Function | None:
    """The function that a text is; None if it is no Python, or anything else than one function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes, `is` with a literal: they do parse
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None  # a null byte is a ValueError, too deep a nesting either of the last two
    return body[0] if len(body) == 1 and isinstance(body[0], Function) else None


def _arguments(node: Function) -> set[str]:
    return {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}


def _defines(part: ast.AST) -> set[str | None]:
    """The names that a node other than a name binds."""
    match part:
        case ast.arg(arg=name) | ast.ExceptHandler(name=name):
            return {name}
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return {alias.asname or alias.name.split(".")[0] for alias in aliases}
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return set(names)
        case ast.MatchAs(name=name) | ast.MatchStar(name=name) | ast.MatchMapping(rest=name):
            return {name}
    return set()
