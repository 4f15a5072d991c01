"""ADJUST's own procedures, rendered plainly from its code's description: what the suites compare with.

K sampler passes per forward, logits of every column after each, entropies of all masked columns for
every token, a draw at every masked column of which one is kept. Training: two base forwards per
pair, logits of every column wherever a hidden state appears. Nothing is wasted on purpose beyond that.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Categorical

from dlmjoint.decoding.draw import forbid
from dlmjoint.distill.losses import forward_kl
from dlmjoint.distill.unrolling.unroll import UnrollBatch
from dlmjoint.models.base import Base
from dlmjoint.models.joint import JointSampler
from dlmjoint.types import Canvas, Commit


@torch.inference_mode()
def paper_decode(
    base: Base, sampler: JointSampler | None, canvas: Canvas, commits: int, greedy: bool = False
) -> Iterator[Canvas]:
    """The canvas after every base forward and its `commits` tokens (ADJUST's `_sample`, strategy
    `fixed`); without a sampler, the product of marginals.

    Every row writes the same number, so prompts and responses are of one length.
    """
    while (left := int(canvas.masked.sum(-1)[0])) > 0:
        hidden = base.predict(canvas).hidden
        log_probs = _log_probs(base, hidden)
        for _ in range(min(commits, left)):
            canvas = canvas.write(_commit(canvas, log_probs, greedy))
            if sampler is not None:  # after the last token as well
                hidden = sampler(
                    base.embed(canvas.tokens), hidden, canvas.positions, canvas.attends
                )
                log_probs = _log_probs(base, hidden)
        yield canvas


def _commit(canvas: Canvas, log_probs: Float[Tensor, "B L V"], greedy: bool) -> Commit:
    """The masked column of lowest entropy in every row, and a token there."""
    rows, columns = canvas.masked.nonzero(as_tuple=True)
    some = Categorical(log_probs[rows, columns].exp(), validate_args=False)
    entropies, drawn = some.entropy(), some.probs.argmax(-1) if greedy else some.sample()
    entropy = torch.full_like(canvas.tokens, torch.inf, dtype=entropies.dtype)
    entropy[rows, columns] = entropies
    tokens = canvas.tokens.index_put((rows, columns), drawn)
    best, row = entropy.argmin(-1), torch.arange(len(canvas.tokens), device=rows.device)
    written = tokens[row, best]
    chosen = log_probs[row, best].gather(-1, written[:, None])[:, 0]
    return Commit.of_rows(best, written, chosen)


def _log_probs(base: Base, hidden: Float[Tensor, "B L D"]) -> Float[Tensor, "B L V"]:
    """Of every column. Forbidden ids are left out after every head call, as here and unlike there:
    the loops must be able to write the same text."""
    return forbid(base.unembed(hidden).float(), base.forbidden_ids).log_softmax(-1)


def paper_loss(
    base: Base, sampler: JointSampler, batch: UnrollBatch, depth: int
) -> Float[Tensor, " C"]:
    """One pair per window (ADJUST's `forward_pass_diffusion`): the KL at every cell still masked in
    state `depth`, after so many passes from state 0."""
    with torch.no_grad():
        hidden = base.predict(batch.canvas([0])).hidden
        _log_probs(base, hidden)  # theirs computes the first state's as well
    states: Int[Tensor, "B W L"] = batch.states
    log_probs = None
    for state in range(1, depth + 1):
        canvas = batch.canvas([state])
        hidden = sampler(base.embed(states[:, state]), hidden, canvas.positions, canvas.attends)
        log_probs = _log_probs(base, hidden)
    with torch.no_grad():
        target = _log_probs(base, base.predict(batch.canvas([depth])).hidden)
    assert log_probs is not None
    cells = batch.masked[:, depth]
    return forward_kl(target[cells], log_probs[cells])
