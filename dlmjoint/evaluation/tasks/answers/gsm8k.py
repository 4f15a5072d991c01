"""The number that a text gives as its answer: our reader, and lm-eval's two."""

import re
from collections.abc import Iterator

from dlmjoint.evaluation.tasks.answers.boxed import boxes

MARK = "####"
"""Stands before the answer in the data set's solutions."""
CALCULATOR = re.compile(r"<<.*?>>")
"""The data set's notes for a calculator, in solutions: `<<48/2=24>>`."""

SIGN = r"(?:(?<![\w)])[-−–])?\$?(?:(?<=\$)[-−–])?"
NUMBER = SIGN + r"(?:\d+(?:,\d{3}(?!\d))*|(?=\.\d))(?:\.\d+)?"
"""A sign, if it is no minus between two values; a dollar sign, before or behind it; commas between
thousands; decimals."""
FRACTION = SIGN + r"(?:\d+[ ]+)?\d+[ ]?/[ ]?0*[1-9]\d*(?![\d.,]*\d)"
UNIT = r"(?:[ ]*%|(?:(?:[ ]+|[ ]?/[ ]?)(?!x\b)[a-zA-Z]+){0,3})"
TERM = rf"[(\[]*{NUMBER}{UNIT}\$?[)\]]*"
SIDE = rf"{TERM}(?:\s*(?:[-+*/×÷·−–]|\bx\b)\s*{TERM})*"
VALUE = re.compile(rf"{FRACTION}|{NUMBER}")
ALONE = re.compile(rf"\s*[(\[]*(?:{FRACTION}|{NUMBER}){UNIT}\$?[)\]]*\s*")
CHAIN = re.compile(rf"{SIDE}(?:\s*=\s*{SIDE})*")
FRACTIONS = re.compile(rf"{FRACTION}(?!\s*[-+*/×÷·−–=])")
"""`5 + 3`, `5 + 3 = 8`, `5 apples + 3 apples = 8 apples`, `(20 - 2) * 3 = 18 * 3 = 54`."""

ANSWER = re.compile(
    r"""(?<![/*])\banswer\b  # of 2 points/answer there are several
    (?:\s+to\s+(?:the|this|your)\b[\w ]{0,40}?)?  # to the question
    (?:,[^.,\n]{0,40},|\s+(?:therefore|thus|then|hence|so))?
    [*_\s]*(?:(?P<copula>is|equals|(?:w|sh)ould\ be|will\ be|must\ be)(?![a-z])|:|=)
    """,
    re.IGNORECASE | re.VERBOSE,
)
SENTENCE = re.compile(r"[.!?](?=\s|$)|\n\s*\n")
"""Where one ends."""
FILLER = re.compile(
    r"""[\s*_:$£€~≈`\\(\[\]{]*
    (?:(?:is|are|about|approximately|around|roughly|exactly|just|only|simply|now|a\ total\ of|equal\ to
        |that|there|he|she|it|they|we|you|has|have|costs?|needs?|makes?|spends?|usd
        |[a-z](?:\s*=)|=)[\s*_:$£€~≈`\\(\[\]{]*)*
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What may stand between "answer is" and its number without being a sentence about others."""
ENDED = re.compile(r"(?:\s*[a-zA-Z%°/]+){0,4}\s*(?:[.,;!()*_$\\`\]]|\n|$)")
"""What follows a number that a line gives by itself: a unit, and an end."""
HEADING = re.compile(r"\s*\d+\s*[.):]\s+\S.*\n\s*\S")
"""A numbered heading with text under it: `#### 2. Subtract the eggs`."""

STOPS = re.compile(r"Question:|</s>|<\|im_end\|>")
STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


def extract_number(text: str) -> tuple[str, str] | None:
    """The number a text gives as its answer, as `fractions.Fraction` reads it, and where it stood;
    None if there is none."""
    places = {
        f"after {MARK}": _marked,
        "in the last \\boxed{}": _boxed,
        "after 'answer is'": _said,
        "the last number": _last,
    }
    for place, read in places.items():
        for value in read(text):
            return plain(value), place
    return None


def lm_eval_readings(text: str) -> dict[str, str | None]:
    """What lm-eval's filters of its task `gsm8k` (version 3) read: `strict-match` the first number
    behind `#### `, `flexible-extract` the last that looks like one; None for its `[invalid]`.

    The text ends where that task's would. Commas, dollar signs and a last full stop are left out,
    as its metric leaves them out; it compares what is left letter by letter, so 18.00 is not 18.
    """
    asked = STOPS.split(text, maxsplit=1)[0]
    strict = STRICT.search(asked)
    flexible = FLEXIBLE.findall(asked)
    found = {
        "strict-match": strict[1] if strict else None,
        "flexible-extract": flexible[-1] if flexible else None,
    }
    return {
        name: None if value is None else re.sub(r"[,$]", "", value).removesuffix(".")
        for name, value in found.items()
    }


def plain(value: str) -> str:
    """A number without commas, dollar signs and other people's minus signs; `3 1/2` is `7/2`."""
    value = re.sub(r"[,$]", "", re.sub(r"[−–]", "-", value))
    value = re.sub(r"\s*/\s*", "/", value)
    whole, _, part = value.rpartition(" ")
    if not whole:
        return value
    over, under = part.split("/")
    return f"{whole.rstrip('0123456789')}{int(whole.lstrip('-')) * int(under) + int(over)}/{under}"


def _marked(text: str) -> Iterator[str]:
    """Behind the last mark that a number follows at once."""
    for part in reversed(text.split(MARK)[1:]):
        line = _written(part.strip().partition("\n")[0])
        if _begins(line) and not HEADING.match(part):
            yield from _stated(line)


def _boxed(text: str) -> Iterator[str]:
    for content in reversed(boxes(text)):
        yield from _stated(_written(content))


def _said(text: str) -> Iterator[str]:
    """In the last sentence that says what the answer is: its first number where it begins with one,
    as in "is 18, not 20"; else its last, as in "is what is left of 20, that is 18"."""
    text = _written(text)
    end = len(text)
    for said in reversed(list(ANSWER.finditer(text))):
        rest = text[said.end() : end].lstrip(" \t\n*_:$`[(\\")
        end = said.start()
        sentence = SENTENCE.split(rest, maxsplit=1)[0]
        if said["copula"]:
            yield from _stated(sentence) if _begins(sentence) else reversed(_all(sentence))
        elif _label_of_one(line := sentence.partition("\n")[0]):
            yield from _stated(line)


def _label_of_one(line: str) -> bool:
    """Whether what follows "Answer:" in its line is one number, and not how it comes about."""
    first = VALUE.search(line)
    if first is None or ENDED.match(line, _chain_at(line, first.start()).end()) is None:
        return False
    return _begins(line) or len(_all(line)) == 1


def _last(text: str) -> Iterator[str]:
    yield from reversed([found[0] for found in VALUE.finditer(_written(text))])


def _begins(text: str) -> bool:
    """Whether a value is what a text begins with."""
    filler = FILLER.match(text)
    return VALUE.match(text, filler.end() if filler else 0) is not None


def _stated(text: str) -> list[str]:
    """The first of the values of a text, if there is one."""
    value = VALUE.search(text)
    result = value and _result(_chain_at(text, value.start())[0])
    return [result] if result else []


def _all(text: str) -> list[str]:
    """The values of a text: of sums that are worked out the result, of others none."""
    results, place = [], 0
    while value := VALUE.search(text, place):
        chain = _chain_at(text, value.start())
        results.append(_result(chain[0]))
        place = chain.end()
    return [result for result in results if result]


def _chain_at(text: str, place: int) -> re.Match[str]:
    """The sums that begin with the value there, or the value."""
    found = FRACTIONS.match(text, place) or CHAIN.match(text, place)
    assert found is not None, "a value is a chain of one"
    return found


def _result(chain: str) -> str | None:
    """Of the sides of a chain, the last that is a number and no sum."""
    alone = [side for side in chain.split("=") if ALONE.fullmatch(side)]
    found = VALUE.search(alone[-1]) if alone else None
    return found[0] if found else None


def _written(text: str) -> str:
    r"""A text with the plain signs of what LaTeX and Markdown say otherwise: `\frac{1}{2}` as 1/2,
    `1{,}234` as 1,234, `\times` as `*`, `**18**` as 18."""
    for pattern, sign in PLAIN:
        text = pattern.sub(sign, text)
    return text


PLAIN = [
    (re.compile(pattern), sign)
    for pattern, sign in (
        (CALCULATOR.pattern, ""),
        (r"\{,\}|,\\!", ","),
        (r"\\!", ""),
        (r"(?<=\d)(?:\\[,;: ]|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))", ""),
        (r"\\[,;:]|[\u00a0\u2009\u202f~]", " "),
        (r"\\([$%])", r"\1"),
        (r"(?<=\d)\s*(?=\\[dtc]?frac)", " "),
        (r"\\[dtc]?frac\s*(?:\{([^{}]+)\}|(\d))\s*(?:\{([^{}]+)\}|(\d))", r"\1\2/\3\4"),
        (r"\\(?:text|mathrm|mathbf|textbf|mbox|bold|boxed|fbox)\s*\{([^{}]*)\}", r" \1 "),
        (r"\\(?:times|cdot)(?![a-zA-Z])", "*"),
        (r"\\div(?![a-zA-Z])", "/"),
        (r"(?<!\w)(\*\*|__)(?=\S)([^*\n]+?)(?<=\S)\1(?!\w)", r"\2"),
    )
]
"""In this order."""
