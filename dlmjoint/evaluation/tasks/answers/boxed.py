r"""What a text puts into boxes: `\boxed{5}`, and the forms without braces, `\boxed 5` and `\boxed5`."""

import re
from bisect import bisect

BOX = re.compile(r"\\f?box(?:ed)?(?![a-zA-Z])\s*")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
"""A brace, or what a backslash takes away from being one."""
MATHS = re.compile(r"\\[()\[\]]|(?<!\\)\$\$?|\n\s*\n")
"""What begins or ends mathematics; a paragraph ends all."""
CLOSING = re.compile(rf"(?<!\\)\$|\\\)|\\\]|\n|{BOX.pattern}")
SPACE = re.compile(rf"\s|{BOX.pattern}")


def boxes(text: str) -> list[str]:
    """The contents of all boxes that are closed and not empty, in order; of nested ones, the outer
    and then the inner.

    Without a brace it is the mathematics up to its end, as MATH's own grader has it; outside of any,
    the next word.
    """
    inside = _mathematics(text)
    found = []
    for box in BOX.finditer(text):
        start = box.end()
        if text.startswith("{", start):
            content = _braced(text, start)
        elif inside[bisect(inside, (start, False)) - 1][1]:
            content = text[start : _end(CLOSING, text, start)]
        else:
            content = text[start : _end(SPACE, text, start)].rstrip(".,;:!?*").strip("$")
        found.append(content.strip())
    return [content for content in found if content]


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.search(text, start)
    return found.start() if found else len(text)


def _braced(text: str, start: int) -> str:
    """What stands in the braces that open there; nothing if they do not close."""
    depth = 0
    for sign in BRACE.finditer(text, start):
        depth += (sign[0] == "{") - (sign[0] == "}")
        if depth == 0:
            return text[start + 1 : sign.start()]
    return ""


def _mathematics(text: str) -> list[tuple[int, bool]]:
    r"""Where mathematics begins (True) and ends (False), in order, from the text's beginning on."""
    places = [(-1, False)]
    for sign in MATHS.finditer(text):
        opens = sign[0] in (r"\(", r"\[") or (sign[0].startswith("$") and not places[-1][1])
        places.append((sign.start(), opens))
    return places
