"""Published numbers, and how near to them a run must come. The verdict is about each number; a run
outside its bands has still done its work."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from dlmjoint.disk.provenance import write_json
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.metrics.intervals import wilson
from dlmjoint.evaluation.telling.table import is_share

VERDICTS = "verdicts.json"
AGAIN = "two independent runs; the same seed, versions and machine give the very numbers"
ROUNDING = 0.0005
"""Slack that covers the rounding of numbers written here."""


@dataclass(frozen=True)
class Published:
    """A published number."""

    value: float
    low: float | None = None
    """Lower end of its 95 % interval, where one was published."""
    high: float | None = None
    """Upper end."""


@dataclass(frozen=True)
class Numbers:
    """Published numbers of one metric, and how far a run may be from them.

    A band is the published value, plus and minus the 95 % interval of the difference of two independent
    measurements - sqrt(1 + n / n of the run) times the published interval's own arms - plus `slack`.
    Where no interval was published but n was, the value is a share and the interval Wilson's; where
    neither was, the slack is all there is.
    """

    metric: str
    """As in scores.json: `accuracy`, `mauve`; or a cost, such as `tokens_per_second`."""
    rows: dict[str, float | dict[str, float]]
    """By decoder: a value, or the `value`, `low` and `high` of `Published`. As mappings, because
    jsonargparse reads an object that lies in three others 27 times over."""
    why: str
    """Why the band is what it is."""
    task: str | None = None
    """The task's name; null for a cost."""
    n: int | None = None
    """Examples the published numbers are of; null if that was not published."""
    slack: float = 0.0
    """What the settings' differences may add, in the metric's units."""
    over: str | None = None
    """Compare the quotient by this decoder's number, such as the speed-up over `exact`."""

    def __post_init__(self) -> None:
        if self.slack < 0 or (self.n is not None and self.n < 1):
            raise ConfigError(f"{self.metric}: slack={self.slack}, n={self.n}; expected >= 0, >= 1")
        for decoder in self.rows:
            low, high = self.band(decoder)
            if not low < self.published(decoder).value < high:
                raise ConfigError(
                    f"{self.metric} of {decoder}: the band {low:.3g} to {high:.3g} has no width on "
                    "both sides of the published value: give n, an interval or a slack"
                )

    def published(self, decoder: str) -> Published:
        """A decoder's published number.

        Raises ConfigError if it is neither a value nor a value and the ends of its interval.
        """
        row = self.rows[decoder]
        if not isinstance(row, dict):
            return Published(row)
        if set(row) not in ({"value"}, {"value", "low", "high"}):
            raise ConfigError(
                f"{self.metric} of {decoder} has {', '.join(row)}; expected value, low and high"
            )
        return Published(**row)

    def band(self, decoder: str, n: int | None = None) -> tuple[float, float]:
        """What a run of n examples must come within; of as many as published by default.

        Raises ConfigError if n was published with a value that is no share.
        """
        row = self.published(decoder)
        low, high = row.low, row.high
        if low is None or high is None:
            low, high = (row.value, row.value) if self.n is None else _wilson(row.value, self.n)
        both = sqrt(1 + (1 if self.n is None or n is None else self.n / n))
        below, above = (both * arm + self.slack for arm in (row.value - low, high - row.value))
        return row.value - below, row.value + above


@dataclass(frozen=True)
class Expected:
    """What an evaluation is expected to find."""

    source: str
    """Who published the numbers, where."""
    hardware: str
    """What the run needs and costs."""
    numbers: list[Numbers]
    """The published numbers."""
    caveats: list[str] = field(default_factory=list)
    """What is known to differ from the published setting."""

    def check(self, decoders: Sequence[str], tasks: Sequence[str]) -> None:
        """Raise ConfigError if a number is of a decoder or task the evaluation has not."""
        for part in self.numbers:
            over = () if part.over is None else (part.over,)
            for decoder in (*part.rows, *over):
                if decoder not in decoders:
                    raise ConfigError(
                        f"expected {part.metric} of {decoder}, which is none of the decoders "
                        f"{sorted(decoders)}"
                    )
            if part.task is not None and part.task not in tasks:
                raise ConfigError(f"expected {part.metric} of {part.task}, not among {tasks}")


@dataclass(frozen=True)
class Verdict:
    """One published number beside a run's."""

    decoder: str
    metric: str
    task: str | None
    over: str | None
    published: float
    low: float
    """Lower end of the band."""
    high: float
    """Upper end of the band."""
    measured: float | None
    """None where the run did not measure it."""
    n: int | None
    """Examples the run measured; None for costs."""

    @property
    def inside(self) -> bool | None:
        """Is the measured number in the band; None where there is no such number."""
        return None if self.measured is None else self.low <= self.measured <= self.high

    @property
    def number(self) -> str:
        """What was measured, in words."""
        name = self.metric if self.over is None else f"{self.metric} / {self.over}'s"
        return name if self.task is None else f"{self.task}: {name}"

    @property
    def band(self) -> str:
        """The band as it is shown: of a share, what a share can be of it."""
        low, high = self.low, self.high
        if self.over is None and self.task is not None and is_share(self.metric):
            low, high = max(low, 0.0), min(high, 1.0)
        return f"{low:.3f}–{high:.3f}"

    @property
    def word(self) -> str:
        """The verdict in a word."""
        return {True: "inside", False: "OUTSIDE", None: "not measured"}[self.inside]


def judge(expected: Expected, scores: Mapping[str, Any]) -> list[Verdict]:
    """Every published number beside the one in the content of a scores.json."""
    found, decoders = [], scores["decoders"]
    for part in expected.numbers:
        for decoder in part.rows:
            value, n = _measured(part, decoders, decoder)
            if part.over is not None and value is not None:
                whole, _ = _measured(part, decoders, part.over)
                value = None if whole is None else value / whole
            told, band = part.published(decoder).value, part.band(decoder, n)
            one = Verdict(decoder, part.metric, part.task, part.over, told, *band, value, n)
            found.append(one)
    return found


def expected_of(
    scores: Mapping[str, Any], source: str, decoders: Sequence[str], caveats: Sequence[str] = ()
) -> Expected:
    """The content of a scores.json as what another run is expected to find, for some decoders.

    Scores that have no interval to speak of, such as an exact decoder's trajectory KL, are left out.
    """
    rows: dict[tuple[str, str, int], dict[str, float | dict[str, float]]] = {}
    for decoder in decoders:
        for task, metrics in scores["decoders"][decoder]["tasks"].items():
            for metric, score in metrics.items():
                row = {key: round(score[key], 4) for key in ("value", "low", "high")}
                if row["low"] < row["high"]:
                    rows.setdefault((task, metric, score["n"]), {})[decoder] = row
    numbers = [
        Numbers(metric=metric, task=task, n=n, rows=found, why=AGAIN, slack=ROUNDING)
        for (task, metric, n), found in rows.items()
    ]
    return Expected(source, scores["provenance"]["hardware"], numbers, list(caveats))


def section(expected: Expected) -> str:
    """The `expected` section of a recipe, as YAML."""
    values = {"expected": asdict(expected)}
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=100)


def show(run_dir: Path, expected: Expected, console: Console) -> None:
    """Print the verdicts of a scored run and write them to `run_dir/verdicts.json`."""
    scores = json.loads((run_dir / "scores.json").read_text(encoding="utf-8"))
    verdicts = judge(expected, scores)
    write_json(
        run_dir / VERDICTS,
        {
            "source": expected.source,
            "verdicts": [asdict(one) | {"inside": one.inside} for one in verdicts],
            "provenance": scores["provenance"],
        },
    )
    console.print(table(verdicts))
    inside = sum(one.inside is True for one in verdicts)
    console.print(f"{inside} of {len(verdicts)} numbers inside their bands ({expected.source})")
    console.print(run_dir / VERDICTS, soft_wrap=True)


def show_plan(expected: Expected, console: Console) -> None:
    """Print what a run would be compared with, and why the bands are what they are."""
    console.print(table(judge(expected, {"decoders": {}})))
    console.print(f"published in: {expected.source}")
    console.print(f"needs: {expected.hardware}")
    for why in dict.fromkeys(part.why for part in expected.numbers):
        about = ", ".join(part.metric for part in expected.numbers if part.why == why)
        console.print(f"band of {about}: {why}")
    for caveat in expected.caveats:
        console.print(f"differs: {caveat}")


def table(verdicts: Sequence[Verdict]) -> RichTable:
    """A row per published number; of a run's numbers only if it has any."""
    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    drawn.add_column("decoder", no_wrap=True)
    drawn.add_column("number")
    measured = any(one.measured is not None for one in verdicts)
    for name in ("published", "band", *(("measured", "n", "verdict") if measured else ())):
        drawn.add_column(name, justify="right", no_wrap=True)
    for one in verdicts:
        said = "" if one.measured is None else f"{one.measured:.4g}"
        found = (said, "" if one.n is None else f"{one.n:,}", one.word) if measured else ()
        drawn.add_row(one.decoder, one.number, f"{one.published:.4g}", one.band, *found)
    return drawn


def _measured(
    part: Numbers, decoders: Mapping[str, Any], decoder: str
) -> tuple[float | None, int | None]:
    """A run's number and its n; None for what it has not."""
    found = decoders.get(decoder, {"tasks": {}, "cost": {}})
    if part.task is None:
        return found["cost"].get(part.metric), None
    score = found["tasks"].get(part.task, {}).get(part.metric)
    return (None, None) if score is None else (score["value"], score["n"])


def _wilson(share: float, n: int) -> tuple[float, float]:
    """The interval of a share that was published rounded."""
    if not 0 <= share <= 1:
        raise ConfigError(f"{share} of n={n} is no share: give its interval, or leave n out")
    about = wilson(round(share * n), n)
    return share - (about.value - about.low), share + (about.high - about.value)
