"""What lm-eval's requests for texts ask of a decoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs

from dlmjoint.errors import ConfigError
from dlmjoint.random import derive_seed

WITHOUT_EFFECT: dict[str, tuple[object, ...]] = {
    "num_beams": (1,),
    "top_k": (None, 0, -1),
    "repetition_penalty": (1, 1.0),
}
"""Settings of other models' generation, and the values at which they change nothing."""


@dataclass(frozen=True)
class Wanted:
    """What a task asks of a text; texts that ask for the same are decoded together."""

    columns: int
    temperature: float
    top_p: float
    until: tuple[str, ...]

    @classmethod
    def of(cls, given: dict[str, Any], columns: int) -> "Wanted":
        """From lm-eval's `generation_kwargs`. Raises ConfigError for those without a meaning here."""
        settings = dict(normalize_gen_kwargs(given, columns))
        until, temperature = cast(list[str], settings.pop("until")), settings.pop("temperature")
        settings.pop("do_sample")
        columns = cast(int, settings.pop("max_gen_toks"))
        top_p = cast(float | None, settings.pop("top_p", None))
        for name, value in settings.items():
            if value not in WITHOUT_EFFECT.get(name, ()):
                raise ConfigError(
                    f"the task asks for {name}={value!r}, which has no meaning here: do_sample, "
                    "temperature, top_p, until and max_gen_toks have one; see --gen_kwargs"
                )
        stops = tuple(stop for stop in until if stop)
        return cls(columns, float(cast(float, temperature)), float(top_p or 1.0), stops)


@dataclass
class Request:
    """A text to write."""

    place: int
    """In the list of requests."""
    example_id: int
    """Its noise depends on the seed and on this."""
    prompt: list[int]
    wanted: Wanted
    key: tuple[Any, ...] = field(repr=False)
    """What lm-eval's cache keeps it under."""


def cut_at(text: str, until: Sequence[str]) -> str:
    """A text up to the first of some stops."""
    for stop in until:
        text = text.partition(stop)[0]
    return text


def example_id(request: Instance, context: str, repeat: int) -> int:
    """A document's number, as `dlmjoint eval` has it, so that both write the same; further texts of
    one document, and requests that belong to none, have ids of their own."""
    if request.doc_id is None:
        return derive_seed("lm-eval", context, repeat)
    return request.doc_id if repeat == 0 else derive_seed("lm-eval", request.doc_id, repeat)
