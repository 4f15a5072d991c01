"""A recording in the terminal: colour says who wrote a token, brightness when."""

from collections.abc import Iterator, Mapping, Sequence

from rich.color import Color
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.style import Style
from rich.text import Text

from dlmjoint.show.pieces import MASK, Piece
from dlmjoint.show.record import WRITERS, Recording, Written, cost_line

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "base": (64, 156, 222),
    "sampler": (235, 130, 42),
    "fill": (174, 120, 236),
    "end": (140, 140, 140),
}
"""Of middle lightness, for dark terminals and light ones, and told apart by readers with a colour
vision deficiency."""
GREY = (112, 116, 122)
"""What a token fades towards as it grows old."""
FADE = 0.65
"""How far the oldest has gone."""
NAMED: Mapping[str, str] = {"base": "cyan", "sampler": "yellow", "fill": "magenta", "end": "white"}
"""For terminals of 16 colours, where old tokens are dim instead."""

VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
VISIBLE |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0x2426)
"""Control characters as their pictures: a sampled escape sequence must not command the terminal."""


def show_live(states: Iterator[Recording], console: Console, title: str) -> Recording:
    """Show a decoding while it runs and leave its end on the screen; returns the recording.

    `states` are those of `follow`: there is always a first one.
    """
    recording = next(states)
    named = console.color_system in ("standard", "windows")

    def state(highlight: bool) -> RenderableType:
        return render(recording, title, highlight=highlight, named=named)

    with Live(state(False), console=console, auto_refresh=False) as live:
        for _ in states:
            live.update(state(True), refresh=True)
        live.update(state(False), refresh=True)
    return recording


def render(
    recording: Recording, title: str, *, highlight: bool = False, named: bool = False
) -> RenderableType:
    """The newest state of a recording: prompt, response, legend, cost.

    With `highlight` the tokens of the newest step stand out; `named` keeps to 16 colours.
    """
    step = recording.last
    prompt = Text("".join(p.text for p in recording.prompt).translate(VISIBLE), style="dim")
    response = Text(overflow="fold")
    by_column = {entry.column: entry for entry in recording.written}
    for piece in recording.pieces(step):
        tokens = [by_column[c] for c in range(piece.first, piece.stop) if c in by_column]
        style = _style(piece, tokens, step, highlight, named)
        response.append(piece.text.translate(VISIBLE), style)
    panel = Panel(
        response,
        title=Text(title),
        subtitle=Text(f"step {step}"),
        border_style="dim",
        title_align="left",
        subtitle_align="right",
    )
    cost = Text(cost_line(recording.costs[step]), style="bold")
    return Group(prompt, panel, *_refused(recording), legend(named), cost)


def _refused(recording: Recording) -> list[Text]:
    """The drafts that the newest step has taken back, in a line of their own."""
    drafts = recording.refused[recording.last]
    if not drafts:
        return []
    line = Text("taken back: ", style="dim")
    for draft in drafts:
        (piece, *_) = recording.speller.pieces([draft.token])
        line.append(piece.text.translate(VISIBLE), "dim strike").append(f" ({draft.column}) ")
    return [line]


def legend(named: bool = False) -> Text:
    """The writers in their colours, from their oldest token to their newest."""
    line = Text()
    for writer, name in WRITERS.items():
        for age in (1.0, 0.5, 0.0):
            line.append("█", _ink(writer, age, named))
        line.append(f" {name}   ")
    return line.append(f"(old tokens fade, {MASK} is a mask)", "dim")


def _style(
    piece: Piece, tokens: Sequence[Written], step: int, highlight: bool, named: bool
) -> Style:
    """Of a piece at a step; a piece of several tokens has its newest's."""
    if piece.kind == "mask":
        return Style(dim=True)
    newest = max(tokens, key=lambda entry: entry.step)
    if highlight and newest.step == step:
        return _ink(newest.writer, 0.0, named) + Style(bold=True, reverse=True)
    style = _ink(newest.writer, (step - newest.step) / max(1, step - 1), named)
    return style + Style(dim=True) if piece.kind == "special" else style


def _ink(writer: str, age: float, named: bool) -> Style:
    """A writer's colour, faded by age: 0 is the newest token, 1 the oldest."""
    if named:
        return Style(color=NAMED[writer], dim=age >= 0.5, bold=age == 0)
    mix = zip(COLOURS[writer], GREY, strict=True)
    return Style(color=Color.from_rgb(*(full + (grey - full) * FADE * age for full, grey in mix)))
