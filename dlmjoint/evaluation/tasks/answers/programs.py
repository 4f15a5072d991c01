"""The program that a text holds, in whatever it is wrapped: fences, lists, prose, a class, a script.

Names of functions are regular expressions, `double` or `double|twice`.
"""

import ast
import builtins
import re
import symtable
import textwrap
import warnings
from codeop import compile_command
from collections.abc import Iterator, Sequence

FENCE = re.compile(
    r"(?P<before>[ \t]*(?:>[ \t]*)?(?:(?:[-*+]|\d+[.)])[ \t]+)?)(?P<fence>```+|~~~+)"
)
"""A line that begins or ends a block of code, in a list or a quotation as well."""
BEGINS = re.compile(
    r"(?:@|def |async def |class |import |from \w|if |for |while |try:|with |[\w.\[\], ]+=[^=])"
)
"""How a statement begins that is worth a try; prose hardly does."""
GOES_ON = re.compile(r"(?:elif|else|except|finally)\b")
DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
KEPT = DEFINITION | ast.Import | ast.ImportFrom


def function_in(text: str, name: str) -> str | None:
    """The program in a text that defines a function of that name, as a module that may be run; None
    if there is none.

    It is the first block of code that does, with what it needs of the others; else what is Python of
    a text without blocks. A method of a class counts, and is made a function. What a script does
    behind the function, and what reads input, is left out.
    """
    fenced = blocks(text)
    for number, code in enumerate(fenced):
        for written in (code, textwrap.dedent(code)):
            if has_function(written, name):
                others = fenced[:number] + fenced[number + 1 :]
                return _module(written, name, others)
    if fenced or _continues(text):
        return None
    for written in (text, *_indented(text, name)):
        if has_function(written, name):
            return _module(written, name, [])
    return None


def block(text: str, name: str = r"\w+") -> str | None:
    """The first block of code that defines a function of that name, else the one the text begins
    with; None if there is neither."""
    fenced = blocks(text)
    defining = [code for code in fenced if has_function(code, name)]
    if fenced and FENCE.match(text.lstrip()):
        defining.append(fenced[0])
    return defining[0] if defining else None


def has_function(code: str, name: str) -> bool:
    """Whether a function of that name is defined at the left margin, or as a method of a class."""
    if re.search(rf"^(?:async )?def (?:{name})\b", code, re.MULTILINE):
        return True
    method = rf"^class \w+.*\n(?:(?:[ \t]+.*)?\n)*?[ \t]+(?:async )?def (?:{name})\b"
    return re.search(method, code, re.MULTILINE) is not None


def compiles(code: str) -> bool:
    """Whether a text is a program. Nothing is run."""
    return _tree(code) is not None


def blocks(text: str) -> list[str]:
    """All blocks of code; the last one may lack its end. A fence with a language always opens one: a
    bare fence before it may have closed a block that the prompt had opened. What stands before the
    opening fence is taken from all of its lines."""
    found: list[list[str]] = []
    opened: re.Match[str] | None = None
    for line in text.splitlines():
        fence = FENCE.match(line)
        bare = fence is not None and not line[fence.end() :].strip()
        if fence and (opened is None or (bare and fence["fence"].startswith(opened["fence"]))):
            opened = fence if opened is None else None
            found += [[]] if opened else []
        elif fence and not bare and opened and fence["fence"][0] == opened["fence"][0]:
            opened = fence
            found.append([])
        elif opened:
            found[-1].append(_within(line, opened["before"]))
    return ["\n".join(lines) + "\n" for lines in found]


def _within(line: str, before: str) -> str:
    """A line of a block without what its fence has before it: a quotation's sign, blanks."""
    if ">" in before:
        line = re.sub(r"^[ \t]*>[ ]?", "", line)
        before = before.partition(">")[2][1:]
    blanks = len(line) - len(line.lstrip(" \t"))
    return line[min(len(before), blanks) :]


def _module(code: str, name: str, others: Sequence[str]) -> str:
    """The code without what a script does, with what it needs of other blocks; as it stands if it is
    no Python."""
    if not compiles(code):
        code = _statements(code, name) or code
    tree = _tree(code)
    entry = tree and _entry(tree, name)
    if tree is None or entry is None:
        return code
    code = _without_script(code, tree, entry)
    missing = _globals(code) - _bound(tree.body) - set(dir(builtins))
    for other in others:
        helper = _tree(other)
        if helper and missing & _bound([n for n in helper.body if isinstance(n, DEFINITION)]):
            code = f"{other}\n{code}"
    if isinstance(entry, ast.ClassDef):
        code += f"\n\n{_as_function(entry, name)}\n"
    return code


def _entry(tree: ast.Module, name: str) -> DEFINITION | None:
    """The function, or the class whose method it is; the last, which hides those before it."""
    for node in reversed(tree.body):
        if isinstance(node, ast.ClassDef):
            if _method(node, name):
                return node
        elif isinstance(node, DEFINITION) and re.fullmatch(name, node.name):
            return node
    return None


def _method(of: ast.ClassDef, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for node in of.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.fullmatch(
            name, node.name
        ):
            return node
    return None


def _as_function(of: ast.ClassDef, name: str) -> str:
    """The method as a function; of an object, unless it takes none."""
    method = _method(of, name)
    assert method is not None
    first = [argument.arg for argument in method.args.posonlyargs + method.args.args][:1]
    decorated = bool(method.decorator_list)
    owner = f"{of.name}()" if decorated or first == ["self"] else of.name
    return f"{method.name} = {owner}.{method.name}"


def _without_script(code: str, tree: ast.Module, entry: DEFINITION) -> str:
    """The code without the lines of statements that define nothing the function needs."""
    needed = _globals(code)
    lines = code.splitlines(keepends=True)
    left_out: set[int] = set()
    for node in tree.body:
        if not _is_kept(node, node.lineno > entry.lineno, needed):
            assert node.end_lineno is not None
            left_out |= set(range(node.lineno, node.end_lineno + 1))
    for node in tree.body:  # of `f = 1; print(f)` all stays
        if isinstance(node, KEPT):
            assert node.end_lineno is not None
            left_out -= set(range(node.lineno, node.end_lineno + 1))
    return "".join(line for number, line in enumerate(lines, 1) if number not in left_out)


def _is_kept(node: ast.stmt, behind: bool, needed: set[str]) -> bool:
    if isinstance(node, KEPT):
        return True
    if _reads_input(node):
        return False
    if behind:
        return bool(_bound([node]) & needed)
    return not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call)


def _reads_input(node: ast.stmt) -> bool:
    return any(
        (isinstance(part, ast.Name) and part.id == "input")
        or (isinstance(part, ast.Attribute) and part.attr == "stdin")
        for part in ast.walk(node)
    )


def _bound(nodes: Sequence[ast.stmt]) -> set[str]:
    """Names that statements define or change: `f`, `memo` of `memo[0] = 1`."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, DEFINITION):
            names.add(node.name)
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.alias):
                names.add((part.asname or part.name).partition(".")[0])
            if isinstance(getattr(part, "ctx", None), ast.Store):
                while isinstance(part, ast.Attribute | ast.Subscript):
                    part = part.value
                names |= {part.id} if isinstance(part, ast.Name) else set()
    return names


def _globals(code: str) -> set[str]:
    """Names of the module that functions and classes use; what they are called by, too."""

    def inside(table: symtable.SymbolTable) -> Iterator[str]:
        for child in table.get_children():
            yield child.get_name()
            yield from (one.get_name() for one in child.get_symbols() if one.is_global())
            yield from inside(child)

    with warnings.catch_warnings(action="ignore"):
        return set(inside(symtable.symtable(code, "<text>", "exec")))


def _tree(code: str) -> ast.Module | None:
    """The program's tree; None if it is no program."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of "\d" and the like
            compile(code, "<text>", "exec", dont_inherit=True)
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deep
        return None


def _statements(text: str, name: str) -> str | None:
    """What is Python of a text, statement by statement; None if the function is not among it."""
    parts = re.split(r"\n(?=[^\s])", text)
    found = []
    at = 0
    while at < len(parts):
        end = _statement(parts, at) if BEGINS.match(parts[at]) else at
        found += ["\n".join(parts[at:end])] if end > at else []
        at = max(end, at + 1)
    code = "\n".join(found) + "\n"
    return code if has_function(code, name) else None


def _statement(parts: Sequence[str], start: int) -> int:
    """Where the statement ends that begins with that part; where it begins if it is none."""
    end = start + 1
    while end <= len(parts):
        code = "\n".join(parts[start:end])
        try:
            with warnings.catch_warnings(action="ignore"):
                complete = compile_command(code + "\n", "<text>", "exec") is not None
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            return start
        if complete and not (end < len(parts) and GOES_ON.match(parts[end])):
            return end
        end += 1
    return start


def _continues(text: str) -> bool:
    """Whether a text goes on in the middle of a function."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return line[:1] in " \t" and not re.match(r"\s*(?:@|class |(?:async )?def )", line)


def _indented(text: str, name: str) -> list[str]:
    """The lines around an indented definition that are indented as far, at the left margin."""
    found = re.search(rf"^([ \t]+)(?:async )?def (?:{name})\b", text, re.MULTILINE)
    if found is None:
        return []
    margin = found[1]
    lines = text.splitlines()
    first = last = text.count("\n", 0, found.start())
    while first > 0 and (not lines[first - 1].strip() or lines[first - 1].startswith(margin)):
        first -= 1
    while last < len(lines) and (not lines[last].strip() or lines[last].startswith(margin)):
        last += 1
    return ["\n".join(line[len(margin) :] for line in lines[first:last]) + "\n"]
