"""What `dlmjoint sample` does."""

import sys
import tempfile
from collections import deque
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

from rich.console import Console

from dlmjoint.decoding.policy import Policy
from dlmjoint.disk.provenance import write_text
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.models.load import Loading, load_any_base
from dlmjoint.random import Noise
from dlmjoint.sampling import prompt_ids
from dlmjoint.show.animation import animation
from dlmjoint.show.page import write_page
from dlmjoint.show.record import cost_line, follow
from dlmjoint.show.terminal import show_live


def sample(
    base: str,
    prompt: str | None = None,
    policy: Policy | None = None,
    max_new_tokens: int = 128,
    chat: bool = False,
    seed: int = 0,
    html: Path | None = None,
    svg: Path | None = None,
    live: bool | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    loading: Loading | None = None,
) -> None:
    """Decode one prompt and show who wrote which token when, live and as a page.

    Writes the tokens that `dlmjoint.generate` does with this prompt, policy and seed. Where nothing
    is shown live, the text goes to stdout and what it cost to stderr.

    Args:
        base: folder or hub id of the frozen base.
        prompt: a text, special tokens recognised; null writes an unconditional sample.
        policy: how to decode; the default draws from the base's exact joint, token by token.
        max_new_tokens: columns of the response.
        chat: put the prompt through the tokenizer's chat template as the user's message.
        seed: of the noise.
        html: also write a page there in which every step can be looked at.
        svg: also write an animated picture there, which a README or a slide can show.
        live: show the decoding while it runs; null does where stdout is a terminal.
        device: of the base.
        dtype: of the base; CPUs want float32.
        revision: pins a hub commit of the base.
        loading: how the base comes into memory: device_map, bits, attention.
    """
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {max_new_tokens}, expected at least 1")
    for name, path in {"html": html, "svg": svg}.items():
        if path is not None:
            check_writable(path, name)
    chosen = policy or Policy()
    loaded = load_any_base(base, device, dtype, revision, loading)
    canvas = loaded.canvas([encode(loaded, prompt, chat)], max_new_tokens)
    states = follow(loaded, canvas, chosen.prepare(loaded), Noise(seed, (0,)))
    moving = sys.stdout.isatty() if live is None else live
    if moving:
        console = Console(force_terminal=live)
        recording = show_live(states, console, title=loaded.name)
    else:
        (recording,) = deque(states, maxlen=1)
        sys.stdout.write(f"{recording.text()}\n")
        sys.stderr.write(f"{cost_line(recording.costs[-1])}\n")
    if html is not None:
        settings = {
            "base": loaded.name if revision is None else f"{loaded.name} at {revision}",
            "policy": spell(chosen),
            "seed": str(seed),
            "max_new_tokens": str(max_new_tokens),
            "prompt": "none" if prompt is None else "chat template" if chat else "as it is",
            "device": f"{device}, {dtype}",
        }
        write_page(html, recording, settings)
    if svg is not None:
        write_text(svg, animation(recording))


def encode(base: Base, prompt: str | None, chat: bool) -> list[int]:
    """The prompt's ids; without a prompt, beginning-of-text alone.

    Raises ConfigError if the base cannot take such a prompt, or if it is empty.
    """
    if base.tokenizer is None:
        raise ConfigError(f"{base.name} has no tokenizer: there is no text to show")
    if prompt is None:
        if chat:
            raise ConfigError("chat is the form of a prompt: give one")
        return prompt_ids(base, 1)[0]
    return prompt_ids(base, [base.encode_chat(prompt)] if chat else [prompt])[0]


def check_writable(path: Path, name: str) -> None:
    """Make the folder of a file to be written, which the setting `name` names. Raises ConfigError if
    the file could not be written, before minutes are spent on its content."""
    if path.is_dir():
        raise ConfigError(f"{name} is {path}, which is a folder: give a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be written: {error}") from error


def spell(value: object) -> str:
    """A policy in words: its departures from the defaults, `Policy(commits_per_forward=4)`."""
    if not is_dataclass(value):
        plain = value is None or isinstance(value, bool | int | float | str | Path | tuple | list)
        return str(value) if plain else type(value).__name__
    parts = []
    for field in fields(value):
        given = getattr(value, field.name)
        made = field.default if field.default_factory is MISSING else field.default_factory()
        if given != made:
            parts.append(f"{field.name}={spell(given)}")
    return f"{type(value).__name__}({', '.join(parts)})"
