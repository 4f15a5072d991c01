"""In a browser, from disk and without a network, every control of the page does what it says."""

import json
from pathlib import Path
from typing import Any

import pytest

from dlmjoint.evaluation.telling.report.page import page
from dlmjoint.evaluation.telling.report.runs import Run
from tests.evaluation.report.scenes import DECODERS, HOSTILE, tokenizer
from tests.show.browser import Browser

VISIBLE_TEXT = """[...document.querySelectorAll("#response span")]
    .filter((span) => span.checkVisibility()).map((span) => span.textContent).join("")"""


@pytest.fixture(scope="module")
def opened(browser: Browser, scripted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page([Run.read(scripted)]), encoding="utf-8")
    return path


@pytest.fixture
def at(browser: Browser, opened: Path) -> Browser:
    """The page as it is when it was just opened."""
    browser.send("Emulation.setDeviceMetricsOverride", width=1200, height=900,
                 deviceScaleFactor=1, mobile=False)  # fmt: skip
    browser.open("about:blank")
    browser.open(opened.as_uri())
    browser.wait_for("document.getElementById('browser').dataset.shown !== undefined")
    return browser


def _choose(at: Browser, select: str, value: str) -> None:
    at.evaluate(
        f"""{{ const chosen = document.getElementById({json.dumps(select)});
        chosen.value = {json.dumps(value)}; chosen.dispatchEvent(new Event("change")); }}"""
    )


def _decoder(at: Browser, name: str) -> None:
    at.evaluate(
        f"document.querySelectorAll('#decoders button')[{list(DECODERS).index(name)}].click()"
    )


def _wait_for(at: Browser, task: str, decoder: str, example: int) -> None:
    shown = json.dumps(f"{task}/{decoder}/{example}")
    at.wait_for(f"document.getElementById('browser').dataset.shown === {shown}")


def _text(at: Browser, selector: str) -> str:
    return at.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def _line(scripted: Path, decoder: str, task: str, example: int) -> dict[str, Any]:
    path = scripted / "generations" / decoder / f"{task}.jsonl"
    return json.loads(path.read_text(encoding="utf-8").splitlines()[example])


def test_the_page_fetches_nothing_and_runs_no_text_as_code(at: Browser) -> None:
    assert at.evaluate("performance.getEntriesByType('resource').length") == 0
    assert at.evaluate("document.title") == "scripted: evaluation"


def test_a_heading_sorts_its_column_and_turns_it_round(at: Browser) -> None:
    names = (
        "[...document.querySelectorAll('#scores tbody th')].map((one) => one.textContent.trim())"
    )
    order = [name.split("\u00a0")[-1] for name in at.evaluate(names)]
    assert order == [*DECODERS, "(ceiling)"]
    heading = "[...document.querySelectorAll('#scores thead button')].find((one) => one.textContent.includes('accuracy'))"
    at.evaluate(f"{heading}.click()")
    values = """[...document.querySelectorAll('#scores tbody tr')].map((row) =>
        row.cells[3].dataset.value === undefined ? null : Number(row.cells[3].dataset.value))"""
    assert at.evaluate(values) == [0.9, 0.8, 0.6, 0.6, None]
    at.evaluate(f"{heading}.click()")
    assert at.evaluate(values) == [0.6, 0.6, 0.8, 0.9, None]
    assert at.evaluate(f"{heading}.closest('th').ariaSort") == "ascending"


def test_lines_can_be_hidden_and_the_speed_be_changed(at: Browser) -> None:
    drawn = "[...document.querySelectorAll('#speed .plot [data-series=s1]')].filter((one) => one.getClientRects().length).length"
    before = at.evaluate(drawn)
    assert before > 0
    at.evaluate("document.querySelector('[data-toggles=s1]').click()")
    assert at.evaluate(drawn) == 0
    assert at.evaluate("document.querySelector('[data-toggles=s1]').ariaPressed") == "false"
    at.evaluate("document.querySelector('[data-toggles=s1]').click()")
    assert at.evaluate(drawn) == before
    axis = "[...document.querySelectorAll('#speed [data-speed]')].filter((one) => one.checkVisibility()).map((one) => one.dataset.speed)"
    assert set(at.evaluate(axis)) == {"tokens_per_forward"}
    at.evaluate("document.querySelector('input[value=tokens_per_second]').click()")
    assert set(at.evaluate(axis)) == {"tokens_per_second"}


def test_a_mark_tells_what_it_is_when_it_has_the_focus(at: Browser) -> None:
    point = "document.querySelector('#speed .point')"
    at.evaluate(f"{point}.focus()")
    assert at.evaluate("document.getElementById('tip').checkVisibility()")
    assert _text(at, "#tip") == at.evaluate(f"{point}.getAttribute('aria-label')")
    assert _text(at, "#tip").startswith("exact: 0.900 (0.860–0.940), n = 9;")
    at.evaluate(f"{point}.blur()")
    assert at.evaluate("document.getElementById('tip').checkVisibility()") is False


@pytest.mark.parametrize("decoder", ["exact", "<b>&\"joint'-k4"])
def test_an_example_is_shown_in_the_order_it_was_written(
    at: Browser, scripted: Path, decoder: str
) -> None:
    _choose(at, "example", "2")
    _decoder(at, decoder)
    _wait_for(at, "questions", decoder, 2)
    line, k = _line(scripted, decoder, "questions", 2), DECODERS[decoder]
    spelled = tokenizer()
    last = max(line["steps"])
    assert _text(at, "#where") == f"step {last} of {last}"
    assert at.evaluate(VISIBLE_TEXT) == spelled.decode(line["tokens"])
    assert _text(at, "#prompt") == HOSTILE
    at.evaluate("document.getElementById('slider').focus()")
    at.press("Home")
    masked = at.evaluate(
        "[...document.querySelectorAll('#response .mask')].filter((one) => one.checkVisibility()).length"
    )
    assert masked == len(line["order"])
    assert at.evaluate(VISIBLE_TEXT).startswith("2")  # the anchor
    at.press("ArrowRight")
    written = at.evaluate("document.querySelectorAll('#wrote code').length")
    assert written == k
    about = at.evaluate(
        "[...document.querySelectorAll('#wrote small')].map((one) => one.textContent)"
    )
    assert [int(words.rsplit(" ", 1)[1]) for words in about] == line["order"][:k]


def test_grade_reason_and_policy_are_those_of_the_decoder(at: Browser) -> None:
    _choose(at, "example", "3")
    _decoder(at, "marginals-k4")
    _wait_for(at, "questions", "marginals-k4", 3)
    assert "✗ wrong: <i>not</i> 3" in _text(at, "#grade")
    assert f"answer read: {HOSTILE}" in _text(at, "#grade")
    assert _text(at, "#policy") == "Policy(commits_per_forward=4)"
    signs = at.evaluate(
        "[...document.querySelectorAll('#decoders button')].map((one) => one.textContent[0])"
    )
    assert signs == ["✓", "✓", "✗", "✗"]
    _decoder(at, "exact")
    _wait_for(at, "questions", "exact", 3)
    assert "✓ right: the answer" in _text(at, "#grade")
    assert _text(at, "#policy") == "Policy()"


def test_examples_can_be_filtered_by_their_grades_and_stepped_through(at: Browser) -> None:
    listed = "[...document.getElementById('example').options].map((one) => Number(one.value))"
    assert at.evaluate(listed) == list(range(9))
    _choose(at, "filter", "grades differ")
    _wait_for(at, "questions", "exact", 1)
    assert at.evaluate(listed) == [1, 2, 3]
    at.evaluate("document.getElementById('next-example').click()")
    _wait_for(at, "questions", "exact", 2)
    _choose(at, "filter", "all right")
    _wait_for(at, "questions", "exact", 4)
    assert at.evaluate(listed) == [4, 5, 6, 7, 8]


def test_a_task_without_grades_has_examples_too(at: Browser) -> None:
    _decoder(at, "marginals-k2")
    _wait_for(at, "questions", "marginals-k2", 0)
    _choose(at, "task", "1")
    _wait_for(at, "free_text", "marginals-k2", 0)
    assert _text(at, "#grade") == "the response was full"
    assert at.evaluate("document.getElementById('filter').disabled")


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_sticks_out_of_the_screen(at: Browser, width: int) -> None:
    at.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1,
            mobile=width < 600)  # fmt: skip
    assert at.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_is_usable_without_colour_and_names_its_controls(at: Browser) -> None:
    nameless = """[...document.querySelectorAll("button, select, input")].filter((one) =>
        !(one.textContent.trim() || one.ariaLabel || one.labels?.length)).map((one) => one.outerHTML)"""
    assert at.evaluate(nameless) == []
    assert (
        at.evaluate("document.querySelector('#scores .best .hidden-text').textContent") == " (best)"
    )
