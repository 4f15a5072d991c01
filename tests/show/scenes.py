"""Decodings to show, each beside the trajectory that `trajectories.record` makes of its steps."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.early_rules.prophet import Prophet
from dlmjoint.decoding.guides.ar_guide import ARGuide
from dlmjoint.decoding.order import LeftToRight
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Trained
from dlmjoint.models.base import Base
from dlmjoint.random import Noise
from dlmjoint.show.pieces import MASK
from dlmjoint.show.record import Recording
from dlmjoint.trajectories.record import record
from dlmjoint.types import Canvas, Commit, Step, Trajectory
from tests.conftest import CHECKPOINTS

HOSTILE = (
    "</script><script>document.title = 'taken'</script> <!-- \"quotes\" 'single' \\ & &amp; @DATA@\n"
    "é € 😀👩‍🚀 العربية \x1b[31mred\x1b[0m\x07\r\t \u2028 �� end"
)
POLICIES = {
    "exact": Policy(),
    "marginals": Policy(4),
    "joint": Policy(4, refine=Trained(CHECKPOINTS / "tiny-joint")),
    "early": Policy(2, draw=Draw(temperature=0), early=Prophet()),
    "guided": Policy(4, order=LeftToRight(), guide=ARGuide(CHECKPOINTS / "tiny-judge")),
}


@dataclass(frozen=True)
class Scene:
    """One decoding, twice."""

    base: Base
    recording: Recording
    trajectory: Trajectory

    def state(self, step: int) -> list[int]:
        """The response's ids after a step, from the trajectory."""
        written = self.recording.costs[step].tokens
        return self.trajectory.state(written, self.base.mask_id).tolist()

    def text(self, step: int) -> str:
        """The response after a step as it should be shown, from the trajectory."""
        return shown(tokenizer_of(self.base), self.state(step), self.base.mask_id)


def decoded(base: Base, policy: Policy, prompt: str, length: int = 24) -> Scene:
    canvas = base.canvas([base.encode(prompt)], length)
    steps = list(decode(base, canvas, policy.prepare(base), Noise(3, (0,))))
    return _scene(base, canvas, steps)


def scripted(base: Base, text: str, prompt: str = HOSTILE, seed: int = 0) -> Scene:
    """A decoding that writes this text and an end-of-text in a random order, one to three tokens a
    step."""
    ids = [*base.encode(text), base.eos_id]
    canvas = base.canvas([base.encode(prompt)], len(ids))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(ids), generator=generator).tolist()
    steps = []
    state = canvas
    while order:
        size = int(torch.randint(1, 4, (), generator=generator))
        columns, order = order[:size], order[size:]
        commits = []
        for depth, column in enumerate(columns):
            writer = "base" if depth == 0 else "sampler" if order else "fill"
            commits.append(
                Commit(
                    columns=torch.tensor([[canvas.response.start + column]]),
                    tokens=torch.tensor([[ids[column]]]),
                    log_probs=torch.rand(1, 1, generator=generator).log(),
                    written=torch.tensor([[True]]),
                    writer=writer,
                )
            )
            state = state.write(commits[-1])
        one = torch.tensor([1])
        passes = torch.tensor([len(columns) - 1])
        steps.append(Step(state, tuple(commits), one, passes, 0 * one, one, one))
    return _scene(base, canvas, steps)


def shown(tokenizer: PreTrainedTokenizerBase, ids: list[int], mask_id: int) -> str:
    """Every run of text decoded as a whole, masks and special tokens between the runs."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    parts: list[str] = []
    run: list[int] = []
    for token in [*ids, None]:
        if token is not None and token not in special:
            run.append(token)
            continue
        parts.append(str(tokenizer.decode(run)))
        run = []
        if token is not None:
            name = str(tokenizer.convert_ids_to_tokens(token))
            parts.append(MASK if token == mask_id else name)
    return "".join(parts)


def tokenizer_of(base: Base) -> PreTrainedTokenizerBase:
    assert base.tokenizer is not None
    return base.tokenizer


def _scene(base: Base, canvas: Canvas, steps: list[Step]) -> Scene:
    recording = Recording(base, canvas)
    for number, step in enumerate(steps, 1):
        recording.add(step, seconds=number / 4)
    return Scene(base, recording, record(canvas, steps, (0,))[0])
