"""The terminal shows every token, its writer and the cost, and obeys none of them."""

from io import StringIO

import pytest
from rich.console import Console

from dlmjoint.models.transformer import TransformerBase
from dlmjoint.show.record import WRITERS, Recording, cost_line
from dlmjoint.show.terminal import COLOURS, VISIBLE, render, show_live
from tests.show.scenes import POLICIES, Scene, decoded


def _console(**more: object) -> Console:
    return Console(record=True, file=StringIO(), width=2000, force_terminal=True, **more)  # type: ignore[arg-type]


def _printed(recording: Recording, highlight: bool = False) -> Console:
    console = _console(color_system="truecolor")
    console.print(render(recording, "a title", highlight=highlight))
    return console


def _inside(text: str) -> str:
    """What stands in the frame."""
    framed = [line for line in text.splitlines() if line.startswith("│")]
    return "\n".join(line[2:-2].rstrip() for line in framed)


@pytest.mark.parametrize("name", POLICIES)
def test_every_token_the_legend_and_the_cost_are_shown(tiny: TransformerBase, name: str) -> None:
    scene = decoded(tiny, POLICIES[name], "<|beginoftext|>Tom has 7 pens.")
    text = _printed(scene.recording).export_text()
    expected = scene.text(scene.recording.last).splitlines()
    assert _inside(text) == "\n".join(line.rstrip() for line in expected)
    assert "<|beginoftext|>Tom has 7 pens." in text
    assert all(name in text for name in WRITERS.values())
    assert cost_line(scene.recording.costs[-1]) in text


def test_a_blank_canvas_is_all_masks(tiny: TransformerBase) -> None:
    recording = Recording(tiny, tiny.canvas([tiny.encode("Tom")], 9))
    text = _printed(recording).export_text()
    assert _inside(text) == "·" * 9
    assert "0 base forwards" in text


def test_the_newest_token_has_its_writers_full_colour(tiny: TransformerBase) -> None:
    recording = decoded(tiny, POLICIES["joint"], "Tom has 7 pens.").recording
    segments = list(_console().render(render(recording, "a title")))
    below = next(i for i, segment in enumerate(segments) if segment.text.startswith("╰"))
    colours = {
        tuple(segment.style.color.triplet)
        for segment in segments[:below]
        if segment.style and segment.style.color and segment.style.color.triplet
    }
    assert COLOURS[recording.written[-1].writer] in colours
    assert COLOURS["fill"] not in colours


def test_only_the_newest_step_stands_out_and_only_when_asked(hostile: Scene) -> None:
    reverse = "\x1b[1;7;"
    assert reverse in _printed(hostile.recording, highlight=True).export_text(styles=True)
    assert reverse not in _printed(hostile.recording).export_text(styles=True)


def test_a_sampled_escape_sequence_does_not_reach_the_terminal(hostile: Scene) -> None:
    text = _printed(hostile.recording).export_text()
    assert "␛[31mred␛[0m␇␍" in text
    assert not set(text) & set(map(chr, VISIBLE))


@pytest.mark.parametrize("colours", ["truecolor", "standard", None])
def test_live_ends_with_the_last_state(hostile: Scene, colours: str | None) -> None:
    console = _console(color_system=colours)
    recording = show_live(iter([hostile.recording] * 3), console, "a title")
    assert recording is hostile.recording
    shown = console.export_text()
    last = _printed(recording).export_text()
    assert last.strip() in shown
