"""The tiny world's language: word problems written by a small grammar, and checks of any text
against it.

One table of templates serves both directions: `problem` fills its slots, `agreement` reads texts
with the pattern derived from it. Every mention of the name and of the item is a slot of its own,
so whether they agree is a property of the joint distribution that no marginal knows.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from random import Random

NAMES = ("Tom", "Ann", "Ben", "Mia", "Sam", "Eva", "Leo", "Zoe",
         "Max", "Amy", "Jim", "Kim", "Dan", "Liz", "Roy", "Sue")  # fmt: skip
ITEMS = ("pens", "cups", "figs", "eggs", "hats", "nuts", "keys", "toys",
         "pins", "caps", "nets", "mugs", "jars", "cans", "maps", "fans")  # fmt: skip
CANVAS = 56
"""Columns of the tiny world: a beginning-of-text, a problem of at most 55 tokens, end-of-text."""
LONGEST_SOLUTION = 24
"""Tokens of a solution and its end-of-text, at most."""
TEST_SEED = 1
"""Problems of this stream are never trained on; tasks and held-out losses use them."""
LARGEST = 9
"""No running total is larger, none is below 1: few facts, so that a small model can know them all."""

FACTORS = tuple((a, b) for a in range(2, 6) for b in range(2, 6) if a * b <= LARGEST)

OPENINGS = ("N has # I.", "N owns # I.", "There are # I in the box of N.", "At home N has # I.")
PRODUCT_OPENINGS = ("N fills # boxes with # I each.", "N has # boxes of # I.")
GAINS = ("N buys # more I", "N finds # I", "N gets # more I", "N makes # I")
LOSSES = ("N loses # I", "N sells # of the I", "N drops # I", "N breaks # I")
WHEN = ("", "Then ", "Later ", "Next ")
WHERE = ("", " at the shop", " in town", " at home")
QUESTIONS = (
    "How many I does N have?",
    "How many I does N have now?",
    "How many I are left for N?",
)
CLOSINGS = ("N has # I.", "So there are # I for N.", "N now has # I.")


@dataclass(frozen=True)
class Problem:
    """A question, its worked solution, and what the text is about."""

    question: str
    """Ends with a line break."""
    solution: str
    """Equations, a closing sentence, and `#### answer` on the last line."""
    answer: int
    name: str
    item: str

    @property
    def text(self) -> str:
        """The whole text."""
        return self.question + self.solution


@dataclass(frozen=True)
class Agreement:
    """What can be checked of a text without knowing which text was meant."""

    item: bool
    """One item throughout, mentioned at least four times."""
    name: bool
    """One name throughout, mentioned at least four times."""
    arithmetic: bool
    """Every equation is true, each goes on from the one before, and every number after the last
    one is its result: the closing sentence's and the answer."""
    faithful: bool
    """The equations use the story's numbers and operations, in its order."""
    grammar: bool
    """The text is one of the language's, up to names, items and numbers."""


def problem(seed: int, index: int) -> Problem:
    """Problem number `index` of stream `seed`: the same on every machine and in every process."""
    random = Random(f"{seed}/{index}")
    name, item = random.choice(NAMES), random.choice(ITEMS)
    two_steps = random.random() < 0.55
    total, sentences, equations = 0, [], []

    def tell(template: str, *numbers: int) -> None:
        filled = template
        for number in numbers:
            filled = filled.replace("#", str(number), 1)
        sentences.append(_with_names(filled, name, item))

    if two_steps and random.random() < 0.3:
        boxes, each = random.choice(FACTORS)
        tell(random.choice(PRODUCT_OPENINGS), boxes, each)
        total = boxes * each
        equations.append(f"{boxes}*{each}={total}.")
    else:
        total = random.randint(2, 9)
        # Short openings where two sentences follow: texts end up similar in length.
        tell(random.choice(OPENINGS[:2] if two_steps else OPENINGS), total)
    for _ in range(1 + two_steps - len(equations)):
        gains = total <= 2 or (total <= LARGEST - 2 and random.random() < 0.5)
        change = random.randint(2, min(9, LARGEST - total if gains else total - 1))
        verb = random.choice(GAINS if gains else LOSSES)
        where = "" if two_steps else random.choice(WHERE)
        tell(f"{random.choice(WHEN[:2] if two_steps else WHEN)}{verb}{where}.", change)
        after = total + change if gains else total - change
        equations.append(f"{total}{'+' if gains else '-'}{change}={after}.")
        total = after
    question = _with_names(random.choice(QUESTIONS), name, item)
    closing = random.choice(CLOSINGS[::2] if two_steps else CLOSINGS).replace("#", str(total))
    closing = _with_names(closing, name, item)
    return Problem(
        question=" ".join([*sentences, question]) + "\n",
        solution=" ".join([*equations, closing]) + f"\n#### {total}",
        answer=total,
        name=name,
        item=item,
    )


def extract_answer(text: str) -> int | None:
    """The integer after the last `####`; None if there is none."""
    _, mark, tail = text.rpartition("####")
    found = re.fullmatch(r"\s*(-?\d+)\s*", tail)
    return int(found[1]) if mark and found else None


def agreement(text: str) -> Agreement:
    """The checks, each independent of the others, for any text whatever."""
    parsed = _LANGUAGE.fullmatch(text)
    return Agreement(
        item=_agree(text, ITEMS),
        name=_agree(text, NAMES),
        arithmetic=_arithmetic(text),
        faithful=parsed is not None and _faithful(parsed["story"], parsed["equations"]),
        grammar=parsed is not None,
    )


def _with_names(template: str, name: str, item: str) -> str:
    """Fill the slots N and I; they stand alone as words in every template."""
    return re.sub(r"\bI\b", item, re.sub(r"\bN\b", name, template))


def _agree(text: str, words: tuple[str, ...]) -> bool:
    """At least four of the words, all the same. A word of no list is not a mention: whether
    something else stands in a slot's place is the grammar's question."""
    mentions = re.findall(rf"\b(?:{'|'.join(words)})\b", text)
    return len(mentions) >= 4 and len(set(mentions)) == 1


_EQUATION = re.compile(r"(\d+)([+*-])(\d+)=(\d+)")


def _value(left: int, operation: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operation]


def _arithmetic(text: str) -> bool:
    found = list(_EQUATION.finditer(text))
    if not found or len(found) != text.count("="):
        return False
    equations = [(int(m[1]), m[2], int(m[3]), int(m[4])) for m in found]
    true = all(_value(a, op, b) == c for a, op, b, c in equations)
    chained = all(before[3] == after[0] for before, after in pairwise(equations))
    result = equations[-1][3]
    after = [int(number) for number in re.findall(r"\d+", text[found[-1].end() :])]
    return true and chained and set(after) == {result} and extract_answer(text) == result


def _faithful(story: str, equations: str) -> bool:
    told = [int(number) for number in re.findall(r"\d+", story)]
    product = any(_pattern(opening).match(story) for opening in PRODUCT_OPENINGS)
    wanted, total = [], told[0]
    if product:
        wanted.append((told[0], "*", told[1]))
        total = told[0] * told[1]
    sentences = story.split(". ")[1:]
    for number, sentence in zip(told[2 if product else 1 :], sentences, strict=False):
        sign = "+" if any(_pattern(gain).search(sentence) for gain in GAINS) else "-"
        wanted.append((total, sign, number))
        total = _value(total, sign, number)
    return wanted == [(int(a), op, int(b)) for a, op, b, _ in _EQUATION.findall(equations)]


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(_expression(template))


def _expression(template: str) -> str:
    """A template as a regular expression: any name, any item, any number."""
    slots = {"N": f"(?:{'|'.join(NAMES)})", "I": f"(?:{'|'.join(ITEMS)})", "#": r"\d+"}
    words = re.split(r"(\bN\b|\bI\b|#)", template)
    return "".join(slots.get(word, re.escape(word)) for word in words)


def _one_of(templates: tuple[str, ...]) -> str:
    return f"(?:{'|'.join(map(_expression, templates))})"


_LANGUAGE = re.compile(
    rf"(?P<story>{_one_of(OPENINGS + PRODUCT_OPENINGS)}"
    rf"(?: {_one_of(WHEN)}{_one_of(GAINS + LOSSES)}{_one_of(WHERE)}\.){{1,2}})"
    rf" {_one_of(QUESTIONS)}\n(?P<equations>(?:\d+[+*-]\d+=\d+\. ){{1,2}})"
    rf"{_one_of(CLOSINGS)}\n#### \d+"
)
"""The whole language, up to agreement and arithmetic."""
