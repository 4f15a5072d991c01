"""`dlmjoint.generate`: prompts in, texts and their cost out."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base, Texts
from dlmjoint.random import Noise
from dlmjoint.trajectories.record import record
from dlmjoint.trajectories.tally import Tally
from dlmjoint.types import Trajectory

Prompts = Sequence[str] | Sequence[Sequence[int]] | Int[Tensor, "B P"] | int

MOST_ROWS = 64
"""Rows decoded together where no batch size is given."""


@dataclass(frozen=True)
class Output:
    """What `generate` returns: one entry per prompt, in the prompts' order, and the cost of all."""

    sequences: list[list[int]]
    """Prompt and response ids, without padding."""
    texts: list[str]
    """Responses up to end-of-text; empty strings where the base has no tokenizer."""
    trajectories: list[Trajectory]
    """Which column was written when, with its log-probability."""
    tally: Tally

    @property
    def base_forwards(self) -> int:
        """Base forwards, summed over prompts."""
        return self.tally.base_forwards

    @property
    def sampler_passes(self) -> int:
        """Sampler passes, summed over prompts."""
        return self.tally.sampler_passes

    @property
    def tokens_per_forward(self) -> float:
        """Tokens written per base forward."""
        return self.tally.tokens / self.tally.base_forwards

    @property
    def seconds(self) -> float:
        """Wall time of the decoding, device synchronised."""
        return self.tally.seconds


def generate(
    base: Base,
    prompts: Prompts,
    policy: Policy | None = None,
    max_new_tokens: int = 128,
    seed: int = 0,
    batch_size: int | None = None,
    first_id: int = 0,
    anchors: Texts | Sequence[Texts] | None = None,
) -> Output:
    """Decode prompts with a policy; the default draws from the base's exact joint.

    `prompts` are texts (special tokens recognised, none added), id lists, a tensor of ids without
    padding, or a number of unconditional samples. Prompt i is example `first_id + i`: its result
    depends on (seed, example id), not on `batch_size` (None: up to 64 rows together). `anchors` are
    texts or ids fixed in every response before decoding, by response column (negative: from its
    end), such as `{-10: " The answer is"}`, or a list of such, one a prompt.

    Raises ConfigError if a prompt is empty or too long for the base or an anchor does not fit, MismatchError if the policy's
    sampler belongs to another base.
    """
    rows = prompt_ids(base, prompts)
    prepared = (policy or Policy()).prepare(base)
    tally = Tally(eos_id=base.eos_id)
    trajectories: list[Trajectory] = []
    size = batch_size or MOST_ROWS
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        ids = tuple(range(first_id + start, first_id + start + len(part)))
        own = anchors[start : start + size] if isinstance(anchors, Sequence) else anchors
        canvas = base.canvas(part, max_new_tokens, own)
        steps = tally.timed(decode(base, canvas, prepared, Noise(seed, ids)), base.device)
        trajectories += record(canvas, steps, ids)
    return Output(
        sequences=[[*t.prompt.tolist(), *t.response.tolist()] for t in trajectories],
        texts=[
            "" if base.tokenizer is None else base.decode(t.response.tolist(), t.anchored)
            for t in trajectories
        ],
        trajectories=trajectories,
        tally=tally,
    )


def prompt_ids(base: Base, prompts: Prompts) -> list[list[int]]:
    """Any form of prompts as lists of ids. Raises ConfigError if there is none, or an empty one."""
    if isinstance(prompts, int):
        if base.bos_id is None:
            raise ConfigError(f"{base.name} has no beginning-of-text id: give prompts")
        rows = [[base.bos_id] for _ in range(prompts)]
    elif isinstance(prompts, Tensor):
        rows = prompts.tolist()
    else:
        rows = [base.encode(p) if isinstance(p, str) else list(p) for p in prompts]
    if not rows:
        raise ConfigError("there are no prompts")
    for index, row in enumerate(rows):
        if not row:
            raise ConfigError(f"prompt {index} is empty; start it with {base.bos_id} (the bos id)")
    return rows
