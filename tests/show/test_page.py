"""The page holds the recording and nothing else, whatever its texts say; in a browser every control
leads to the trajectory's states."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dlmjoint.models.transformer import TransformerBase
from dlmjoint.show.page import data, page, steps_of, write_page
from dlmjoint.show.pieces import Speller
from dlmjoint.show.record import Written, cost_table
from tests.show.browser import Browser
from tests.show.scenes import HOSTILE, POLICIES, Scene, decoded, tokenizer_of

SETTINGS = {"base": "</script> \"a base\" & 'more'", "policy": "Policy()", "seed": "0"}
VISIBLE_TEXT = """[...document.querySelectorAll("#response span")]
    .filter((span) => span.checkVisibility()).map((span) => span.textContent).join("")"""


class _Reader(HTMLParser):
    """Elements, their attributes and the text of each script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data


def test_the_page_holds_the_data_whatever_the_texts_say(hostile: Scene) -> None:
    read = _Reader(page(hostile.recording, SETTINGS))
    held, program = read.scripts
    assert json.loads(held) == json.loads(json.dumps(data(hostile.recording, SETTINGS)))
    assert program.lstrip().startswith('"use strict"')
    assert "".join(p["text"] for p in json.loads(held)["prompt"]) == HOSTILE


def test_the_page_asks_for_no_other_resource(hostile: Scene) -> None:
    read = _Reader(page(hostile.recording, SETTINGS))
    assert not [tag for tag, attributes in read.tags if {"src", "href"} & attributes.keys()]
    policies = [a["content"] for _, a in read.tags if a.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


def test_every_control_has_a_name(hostile: Scene) -> None:
    html = page(hostile.recording, SETTINGS)
    read = _Reader(html)
    controls = {a["id"]: a for tag, a in read.tags if tag in ("button", "input") and "id" in a}
    assert controls.keys() == {"back", "play", "next", "slider"}
    assert all("aria-label" in controls[name] for name in ("back", "next", "slider"))
    assert ">Play</button>" in html


@pytest.mark.parametrize("name", POLICIES)
def test_the_spans_alive_at_a_step_are_its_text(tiny: TransformerBase, name: str) -> None:
    scene = decoded(tiny, POLICIES[name], "Tom has 7 pens.")
    held = data(scene.recording, SETTINGS)
    assert len(held["steps"]) == scene.recording.last + 1
    for step, content in enumerate(held["steps"]):
        alive = [s["text"] for s in held["spans"] if s["born"] <= step < s["gone"]]
        assert "".join(alive) == scene.text(step)
        assert content["cost"] == cost_table(scene.recording.costs[step])
    order = [column for content in held["steps"] for column in content["columns"]]
    assert order == scene.trajectory.order.tolist()
    assert [token["id"] for token in held["tokens"]] == scene.trajectory.response.tolist()


def test_anchors_stand_from_the_beginning(tiny: TransformerBase) -> None:
    ids = tiny.encode("Tom has 7")
    written = [Written(column=0, token=ids[0], writer="base", prob=0.5, step=1)]
    held = steps_of(Speller(tokenizer_of(tiny)), [], [None, *ids[1:]], written, 1)
    assert [span["born"] for span in held["spans"] if span["kind"] == "text"][1:] == [0] * (
        len(ids) - 1
    )
    assert [token["writer"] for token in held["tokens"]] == ["base", *["anchor"] * (len(ids) - 1)]
    assert "anchor" in held["writers"]
    assert [step["columns"] for step in held["steps"]] == [[], [0]]


def test_a_page_is_not_much_larger_for_many_steps(tiny: TransformerBase) -> None:
    exact = data(decoded(tiny, POLICIES["exact"], "Tom", length=48).recording, SETTINGS)
    assert len(exact["spans"]) <= 3 * 48


def _open(browser: Browser, scene: Scene, folder: Path, fragment: str = "") -> None:
    write_page(folder / "page.html", scene.recording, SETTINGS)
    browser.open((folder / "page.html").as_uri() + fragment)


def _at(browser: Browser, scene: Scene) -> int:
    """The step the page is at, if everything on it is of that step."""
    step = int(browser.evaluate("document.getElementById('slider').value"))
    last = scene.recording.last
    assert browser.evaluate(VISIBLE_TEXT) == scene.text(step)
    where = f"step {step} of {last}"
    assert browser.evaluate("document.getElementById('where').textContent") == where
    assert browser.evaluate("document.getElementById('slider').ariaValueText") == where
    cost = "[...document.querySelectorAll('#cost div')].map((row) => [...row.children].map((one) => one.textContent))"
    expected = [list(row) for row in cost_table(scene.recording.costs[step])]
    assert browser.evaluate(cost) == expected
    written = browser.evaluate("document.querySelectorAll('#wrote code').length")
    assert written == len(scene.recording.wrote(step))
    return step


@pytest.mark.parametrize("name", ["hostile", *POLICIES])
def test_the_slider_moves_through_the_states_of_the_trajectory(
    browser: Browser, tiny: TransformerBase, hostile: Scene, tmp_path: Path, name: str
) -> None:
    scene = hostile if name == "hostile" else decoded(tiny, POLICIES[name], "Tom has 7 pens.")
    _open(browser, scene, tmp_path)
    assert _at(browser, scene) == scene.recording.last
    browser.evaluate("document.getElementById('slider').focus()")
    browser.press("Home")
    for step in range(scene.recording.last + 1):
        assert _at(browser, scene) == step
        browser.press("ArrowRight")
    assert _at(browser, scene) == scene.recording.last
    assert browser.evaluate("document.title") == "dlmjoint sample"


def test_keys_and_buttons_move_the_slider(browser: Browser, hostile: Scene, tmp_path: Path) -> None:
    _open(browser, hostile, tmp_path, "#step=3")
    last = hostile.recording.last
    assert _at(browser, hostile) == 3
    for key, step in {"ArrowLeft": 2, "ArrowRight": 3, "Home": 0, "End": last}.items():
        browser.press(key)
        assert _at(browser, hostile) == step
    assert browser.evaluate("document.getElementById('next').disabled")
    browser.evaluate("document.getElementById('back').click()")
    assert _at(browser, hostile) == last - 1
    browser.evaluate("document.getElementById('next').click()")
    assert _at(browser, hostile) == last


def test_play_runs_from_the_blank_canvas_to_the_end(
    browser: Browser, tiny: TransformerBase, tmp_path: Path
) -> None:
    scene = decoded(tiny, POLICIES["marginals"], "Tom", length=12)
    _open(browser, scene, tmp_path)
    browser.evaluate("document.getElementById('play').click()")
    assert _at(browser, scene) == 0
    assert browser.evaluate("document.getElementById('play').textContent") == "Pause"
    browser.wait_for("document.getElementById('play').textContent === 'Play'")
    assert _at(browser, scene) == scene.recording.last


def test_tokens_tell_who_wrote_them_when_and_how_surely(
    browser: Browser, hostile: Scene, tmp_path: Path
) -> None:
    _open(browser, hostile, tmp_path)
    entry = next(w for w in hostile.recording.written if w.column == 0)
    first = 'document.querySelector("#response .token:not([hidden])")'
    title = browser.evaluate(f"{first}.title")
    assert title.startswith(f"step {entry.step}, ")
    assert title.endswith(f"column 0, id {entry.token}")
    assert browser.evaluate(f"{first}.classList.contains('{entry.writer}')")
    colour = f"getComputedStyle({first}).backgroundColor"
    by_writer = browser.evaluate(colour)
    browser.evaluate("document.querySelector('input[value=time]').click()")
    assert browser.evaluate(colour) != by_writer
    assert browser.evaluate("document.getElementById('writers').checkVisibility()") is False
    browser.evaluate("document.querySelector('input[value=writer]').click()")
    assert browser.evaluate(colour) == by_writer
