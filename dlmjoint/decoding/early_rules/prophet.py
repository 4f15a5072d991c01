"""Prophet (arXiv 2508.19982): finish a row as soon as its answer is known.

A row is ready when the gap between the base's two greatest raw logits, averaged over an answer
region, reaches a threshold that falls as decoding proceeds. The test uses the forward that is being
made anyway and comes before its commits (Algorithm 1). Meant for greedy decoding: filling a row with
most probable tokens changes the distribution of samples.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlmjoint.decoding.early import EarlyCommit, Fill, OneShot
from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.types import Canvas


class Region(ABC):
    """Where the answer is expected."""

    @abstractmethod
    def cells(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """The region's cells, written or not; the same for a row whatever lies beside it."""


@dataclass(frozen=True)
class WholeResponse(Region):
    """Every response column that is not an anchor."""

    def cells(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """The response without anchors."""
        cells = torch.zeros_like(canvas.attends)
        cells[:, canvas.response].fill_(True)
        return cells if canvas.anchors is None else cells & ~canvas.anchors


@dataclass(frozen=True)
class Columns(Region):
    """Given response columns."""

    start: int
    """First column, counted from the response's first."""
    length: int
    """Number of columns."""

    def __post_init__(self) -> None:
        if self.start < 0 or self.length < 1:
            raise ConfigError(f"a region of {self.length} columns from {self.start} is no region")

    def cells(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """The columns. Raises ConfigError if the response has not so many."""
        first = canvas.response.start + self.start
        if first + self.length > canvas.response.stop:
            raise ConfigError(
                f"the answer region ends at response column {self.start + self.length}; the response "
                f"has {canvas.response.stop - canvas.response.start}"
            )
        cells = torch.zeros_like(canvas.attends)
        cells[:, first : first + self.length].fill_(True)
        return cells


@dataclass(frozen=True)
class AfterAnchor(Region):
    """The columns behind the last anchor, such as the five after "The answer is"."""

    length: int = 5
    """Number of columns (the released code: 5)."""
    skip: int = 0
    """Columns left out directly behind the anchor (the released code: 1)."""

    def cells(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """The columns, fewer at the response's end. Raises ConfigError if there is no anchor."""
        if canvas.anchors is None or not bool(canvas.anchors.any(-1).all()):
            raise ConfigError("the region AfterAnchor needs an anchor on the canvas")
        columns = torch.arange(canvas.tokens.shape[1], device=canvas.tokens.device)
        last = columns.masked_fill(~canvas.anchors, -1).amax(-1, True)
        behind = (columns > last + self.skip) & (columns <= last + self.skip + self.length)
        if not bool(behind.any(-1).all()):
            raise ConfigError("the anchor ends with the response: no column is left for an answer")
        return behind


class Threshold(ABC):
    """The gap, in logits, that a region must reach."""

    @abstractmethod
    def at(self, progress: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Given how far decoding has come, from 0 to 1."""


@dataclass(frozen=True)
class Staged(Threshold):
    """Three thresholds and the two points where they change (the released code's defaults)."""

    high: float = 7.5
    mid: float = 5.0
    low: float = 2.5
    first: float = 0.33
    """Progress from which `mid` applies."""
    second: float = 0.67
    """Progress from which `low` applies."""

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.second <= 1:
            raise ConfigError(f"stages change at {self.first} and {self.second}, expected 0..1")

    def at(self, progress: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """High, mid or low."""
        later = torch.where(progress < self.second, self.mid, self.low)
        return torch.where(progress < self.first, self.high, later)


@dataclass(frozen=True)
class Linear(Threshold):
    """A threshold that falls steadily (Table 7: 8.0 - 4.5 p)."""

    start: float = 8.0
    slope: float = 4.5

    def at(self, progress: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """start - slope * progress."""
        return self.start - self.slope * progress


PAPER = {
    **dict.fromkeys(
        ("mmlu", "arc_c", "hellaswag", "truthfulqa", "winogrande", "piqa", "sudoku", "countdown"),
        Staged(7.5, 5.0, 2.5),
    ),
    **dict.fromkeys(("gsm8k", "gpqa"), Staged(8.0, 5.0, 3.5)),
    **dict.fromkeys(("humaneval", "mbpp"), Staged(7.5, 5.0, 4.5)),
}
"""Table 6. The released code runs (7.5, 5.0, 2.5) on GSM8K, which is `Staged()`."""


@dataclass(frozen=True)
class Published(Threshold):
    """The paper's thresholds for a benchmark (Table 6)."""

    benchmark: str

    def __post_init__(self) -> None:
        if self.benchmark not in PAPER:
            raise ConfigError(
                f"the paper has no thresholds for {self.benchmark!r}; it has {sorted(PAPER)}"
            )

    def at(self, progress: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """As the table says."""
        return PAPER[self.benchmark].at(progress)


@dataclass(frozen=True)
class Prophet(EarlyCommit):
    """Finish a row when its answer region's mean gap reaches the threshold.

    Progress is the share of the row's own masks that are written. With a constant K that divides
    their number this is forwards done / forwards planned, the paper's (T - t)/T; it is also defined
    where the number of forwards is not known beforehand.
    """

    threshold: Threshold = field(default_factory=Staged)
    """The gap needed."""
    region: Region = field(default_factory=WholeResponse)
    """Where the answer is expected."""
    fill: Fill = field(default_factory=OneShot)
    """What a finished row is filled with."""
    planned: int | None = None
    """Count progress in forwards instead: (forward + 1) / planned, as the released code does, which
    counts the forward in progress."""

    def watch(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """The masked cells of the region: a cache must not answer for them from memory."""
        return self.region.cells(canvas) & canvas.masked

    def reads(self, canvas: Canvas) -> Bool[Tensor, "B L"]:
        """The whole region: written cells count too."""
        return self.region.cells(canvas)

    def ready(self, turn: Turn) -> Bool[Tensor, " B"]:
        """Those whose gap is wide enough."""
        return self._ready(turn, self.region.cells(turn.canvas))

    def finish(self, turn: Turn) -> None:
        """Fill the rows whose gap is wide enough."""
        answer = self.region.cells(turn.canvas)
        self.fill(turn, self._ready(turn, answer), answer)

    def _ready(self, turn: Turn, answer: Bool[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        enough = mean_gap(turn, answer) >= self.threshold.at(self.progress(turn))
        return enough & turn.left.any(-1)

    def progress(self, turn: Turn) -> Float[Tensor, " B"]:
        """How far each row has come, from 0 to 1."""
        if self.planned is not None:
            made = torch.zeros_like(turn.passes, dtype=torch.float64) + turn.forward
            return (made + 1) / self.planned
        own = WholeResponse().cells(turn.canvas)
        left = (turn.canvas.masked & own).sum(-1)
        return 1 - left.double() / own.sum(-1)


def mean_gap(turn: Turn, cells: Bool[Tensor, "B L"]) -> Float[Tensor, " B"]:
    """The mean over each row's cells of the difference of its two greatest raw logits, float32;
    cells already written count too (Algorithm 1). NaN where there are none: a base that writes block
    after block says nothing of a region its block does not touch."""
    if turn.within is not None:
        cells = cells & turn.within
    return turn.gaps(cells).double().sum(-1) / cells.sum(-1)
