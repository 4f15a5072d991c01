"""The values that flow through an evaluation: examples, generations, grades, scores."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from dlmjoint.types import Trajectory


@dataclass(frozen=True)
class Example:
    """One thing to write."""

    id: int
    """Its noise depends on the seed and on this."""
    prompt: str
    """Special tokens are recognised, none is added; empty in unconditional tasks."""
    reference: str | None = None
    """The right answer, where there is one."""


@dataclass(frozen=True)
class Generation:
    """One decoded example: a line of `generations/<decoder>/<task>.jsonl`."""

    example_id: int
    text: str
    """Up to the first end-of-text behind the last anchor, special tokens left out."""
    stop: str
    """`eos` if the text ended by itself, `length` if the response was full."""
    prompt: list[int]
    tokens: list[int]
    """All of the response, what follows the end-of-text included."""
    order: list[int]
    """order[s] is the response column written by commit number s; anchors were never written."""
    log_probs: list[float]
    """log_probs[s]: nats, of commit number s under the distribution it was drawn from."""
    steps: list[int]
    """steps[s]: the step of the decoding, from 1, that made commit number s."""
    writers: list[str]
    """writers[s]: whose distribution commit number s was drawn from, as in `Commit.writer`."""
    base_forwards: int
    canvases: int
    """Canvases they were about: more than forwards where drafts are verified."""
    sampler_passes: int
    guide_passes: int
    """Forwards of a guiding model."""
    columns: int
    """Canvas columns the base computed for this row, padding not counted."""
    cells: int
    """Cells whose logits were computed for this row, by arithmetic: see `cost.head_cells`."""
    text_tokens: int
    """Tokens written that are not end-of-text; anchors are not written."""
    seconds: float
    """The batch's wall time, shared equally among its rows."""
    rows: int
    """Examples in the batch, this one included."""
    peak_bytes: int
    """Most device memory allocated in the batch; 0 on a CPU."""

    @property
    def latency(self) -> float:
        """Seconds until this answer was there: a batch's answers are, when all of it is done."""
        return self.seconds * self.rows

    def trajectory(self) -> Trajectory:
        """The response with the order it was written in."""
        parts = (torch.tensor(part) for part in (self.prompt, self.tokens, self.order))
        log_probs = torch.tensor(self.log_probs, dtype=torch.float64)
        return Trajectory(self.example_id, *parts, log_probs=log_probs)

    def to_json(self) -> dict[str, Any]:
        """The line's content."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Generation":
        """The generation of a line. Raises TypeError if a field is missing or unknown."""
        return cls(**values)


@dataclass(frozen=True)
class Grade:
    """A judged answer. What cannot be read is wrong, and says so; no answer is assumed."""

    correct: bool
    extracted: str | None
    """The answer as it was read, None if there was none."""
    reason: str
    """Why it is right or wrong, in words."""
    readings: dict[str, bool] = field(default_factory=dict)
    """Whether others' readers would call the text right, by their names."""


@dataclass(frozen=True)
class Score:
    """A measured value and how far to trust it."""

    value: float
    low: float
    """Lower end of the 95 % interval; what it covers stands in the metric's docstring."""
    high: float
    """Upper end."""
    n: int
    """Examples measured."""

    def to_json(self) -> dict[str, float | int]:
        """As it stands in `scores.json`."""
        return asdict(self)
