"""The animated picture shows the decoding and nothing else, step by step, whatever its texts say."""

import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from dlmjoint.models.transformer import TransformerBase
from dlmjoint.show.animation import COLUMNS, STEP, UNSPEAKABLE, _boxes, animation
from tests.show.browser import Browser
from tests.show.scenes import HOSTILE, POLICIES, Scene, decoded

SVG = "{http://www.w3.org/2000/svg}"
STOPPED_AT = """document.getAnimations().forEach((one) => { one.pause(); one.currentTime = %s; })"""
SHOWN = """[...document.querySelectorAll("%s")]
    .filter((one) => getComputedStyle(one).opacity === "1").map((one) => one.textContent.trim())"""


def _texts(svg: str, kind: str) -> list[str]:
    found = ET.fromstring(svg).iter(f"{SVG}text")
    return [one.text or "" for one in found if kind in (one.get("class") or "").split()]


@pytest.mark.parametrize("name", POLICIES)
def test_the_picture_holds_the_response_and_its_prompt(tiny: TransformerBase, name: str) -> None:
    scene = decoded(tiny, POLICIES[name], "Tom has 7 pens.")
    svg = animation(scene.recording)
    assert "".join(_texts(svg, "asked")) == "Tom has 7 pens."
    shown = "".join(_texts(svg, "token")).replace("↵", "\n")
    written = scene.text(scene.recording.last)
    assert shown.strip()
    assert written.startswith(shown)
    assert tiny.decode(tiny.encode(written[len(shown) :])) == ""


def test_whatever_a_text_says_the_picture_is_xml_that_names_no_other_resource(
    hostile: Scene,
) -> None:
    svg = animation(hostile.recording)
    elements = list(ET.fromstring(svg).iter())
    assert {one.tag.removeprefix(SVG) for one in elements} == {"svg", "title", "style", "rect", "text", "g"}  # fmt: skip
    assert not [one for one in elements if any("href" in name for name in one.attrib)]
    said = UNSPEAKABLE.sub("\ufffd", HOSTILE).replace("\t", "    ").replace("\r", "")
    shown = "".join(_texts(svg, "token")).replace("↵", "")
    assert shown == "".join(said.splitlines())


def test_boxes_fill_lines_and_never_overlap(hostile: Scene) -> None:
    boxes = _boxes(hostile.recording, 2)
    assert boxes[0].row == 2
    for box, after in pairwise(boxes):
        assert 0 < box.column + box.cells <= COLUMNS
        beside = (box.row, box.column + box.cells)
        assert (after.row, after.column) in (beside, (box.row + 1, 0))


def test_played_it_shows_each_step_for_its_time_and_then_the_finished_text(
    browser: Browser, tiny: TransformerBase, tmp_path: Path
) -> None:
    scene = decoded(tiny, POLICIES["joint"], "Tom has 7 pens.")
    path = tmp_path / "decoding.svg"
    path.write_text(animation(scene.recording), encoding="utf-8")
    browser.open(path.as_uri())
    boxes = _boxes(scene.recording, 1)
    for step in range(scene.recording.last + 1):
        browser.evaluate(STOPPED_AT % (1000 * STEP * (step + 0.5)))
        there = [box.text.strip() for box in boxes if box.step <= step]
        assert browser.evaluate(SHOWN % "g.step") == there
        told = f"{step} forwards, {scene.recording.costs[step].tokens} tokens"
        assert browser.evaluate(SHOWN % ".now") == [told]
