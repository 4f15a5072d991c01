"""Log-likelihoods of given answers under a masked diffusion model, by Monte Carlo or exactly."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlmjoint.decoding.draw import Draw, in_parts
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import Base
from dlmjoint.random import derive_seed


@dataclass(frozen=True)
class Answer:
    """What is to be scored."""

    prompt: tuple[int, ...]
    """Ids it is conditioned on, at least one."""
    tokens: tuple[int, ...]
    """Ids to be scored, at least one."""


def log_likelihoods(
    base: Base, answers: Sequence[Answer], samples: int = 128, seed: int = 0, batch_size: int = 1
) -> list[float]:
    """The log-likelihood of every answer in nats: LLaDA's estimate (arXiv 2502.09992, section 2.4).

    A number l of an answer's L tokens is drawn uniformly, l of them are masked, and L / l times the
    masked tokens' log-probability is averaged over `samples` such draws; the numbers l are spread
    evenly over 1 … L, from a random start. Its mean is the bound that the model is trained on, which
    for a model with a consistent joint is the log-likelihood itself. Where an answer has no more than
    `samples` ways to be masked, all of them are weighed instead and there is no noise: one forward
    for an answer of one token.

    A base that writes block after block knows no masks in finished blocks: there the log-likelihood is
    the sum over the answer's blocks, each estimated so given the prompt and the finished ones before
    it. Behind an answer that ends within a block the block's other columns are masks, as they are when
    it is written.

    The draws depend on the seed, the prompt and L alone: not on batch size, order or processes, and
    answers of one length to one prompt are compared under the same masks. Ids that are never text
    (`Base.forbidden_ids`) have no probability. Raises ConfigError for an answer with none, or
    without tokens, and for one that is too long for the base.
    """
    if samples < 1 or batch_size < 1:
        raise ConfigError(f"samples is {samples} and batch_size {batch_size}, expected 1 or more")
    for answer in answers:
        _check(base, answer)
    draw = Draw().prepare(base)
    totals = [0.0] * len(answers)
    parts = [
        part for number, answer in enumerate(answers) for part in _parts(base, number, answer, seed)
    ]
    for batch in _batches(parts, samples, batch_size):
        masks = torch.stack([mask for _, mask, _ in batch])
        found = _masked_log_probs(base, draw, [part for part, _, _ in batch], masks)
        for (part, _, weight), value in zip(batch, found.tolist(), strict=True):
            totals[part.number] += weight * value
    return totals


@dataclass(frozen=True)
class _Part:
    """Tokens of an answer that are masked together: those in one block, or all."""

    number: int
    """Of the answer."""
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    rest: int
    """Columns behind them that stay masks."""
    seed: int
    """Of their masks."""

    @property
    def shape(self) -> tuple[int, int]:
        """What parts of one batch have in common."""
        return len(self.tokens), self.rest


def _parts(base: Base, number: int, answer: Answer, seed: int) -> Iterator[_Part]:
    own = derive_seed(seed, "likelihood", repr(answer.prompt))
    text, end = answer.prompt + answer.tokens, len(answer.prompt)
    while end < len(text):
        begin = end
        block = base.attention.rest(begin) or base.attention.block_length
        end = len(text) if block is None else min(begin + block, len(text))
        behind = columns_behind(base, end)
        yield _Part(
            number, text[:begin], text[begin:end], behind, own ^ (begin - len(answer.prompt))
        )


def columns_behind(base: Base, length: int) -> int:
    """How many columns follow a row of so many in a base's canvas: those to the end of its block, as far as the
    base reaches."""
    return min(base.attention.rest(length), base.max_length - length)


def _check(base: Base, answer: Answer) -> None:
    if not answer.prompt or not answer.tokens:
        raise ConfigError("a likelihood needs a prompt and an answer of at least one token each")
    if never := sorted(set(answer.tokens).intersection(base.forbidden_ids)):
        raise ConfigError(f"the answer has the id {never[0]}, which is no token of text")
    length = len(answer.prompt) + len(answer.tokens)
    if length > base.max_length:
        raise ConfigError(
            f"a prompt and its answer have {length} tokens, more than the {base.max_length} columns "
            f"{base.name} was made for: ask for fewer worked examples"
        )


def masks_of(
    length: int, samples: int, seed: int
) -> tuple[Bool[Tensor, "S L"], Float[Tensor, " S"]]:
    """Which tokens are masked, and what the sum of their log-probabilities weighs.

    All 2^L - 1 ways if there are no more than `samples`: one that masks l tokens has probability
    1 / (L * binomial(L, l)) and weighs L / l times that.
    """
    if length < 63 and 2**length - 1 <= samples:
        chosen = [c for size in range(1, length + 1) for c in combinations(range(length), size)]
        masks = torch.zeros(len(chosen), length, dtype=torch.bool)
        for row, columns in enumerate(chosen):
            masks[row, list(columns)] = True
        weights = [1 / (len(c) * math.comb(length, len(c))) for c in chosen]
        return masks, torch.tensor(weights, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand((), dtype=torch.float64, generator=generator)
    spread = (start + torch.arange(samples, dtype=torch.float64) / samples) % 1
    counts = 1 + (spread * length).long()
    ranks = torch.rand(samples, length, dtype=torch.float64, generator=generator).argsort(-1)
    masks = ranks.argsort(-1) < counts[:, None]
    return masks, length / counts.double() / samples


def _batches(
    parts: Sequence[_Part], samples: int, batch_size: int
) -> Iterator[list[tuple[_Part, Bool[Tensor, " L"], float]]]:
    """Masked parts with their weights: batches of parts of one shape."""
    batch: list[tuple[_Part, Bool[Tensor, " L"], float]] = []
    for part in sorted(parts, key=lambda part: (part.shape, part.prompt)):
        masks, weights = masks_of(len(part.tokens), samples, part.seed)
        for mask, weight in zip(masks, weights.tolist(), strict=True):
            if batch and (len(batch) == batch_size or batch[0][0].shape != part.shape):
                yield batch
                batch = []
            batch.append((part, mask, weight))
    if batch:
        yield batch


@torch.inference_mode()
def _masked_log_probs(
    base: Base, draw: Draw, parts: Sequence[_Part], masks: Bool[Tensor, "B N"]
) -> Float[Tensor, " B"]:
    """Per row, the summed log-probability of the masked tokens, given the others."""
    length, rest = parts[0].shape
    tokens = torch.tensor([part.tokens for part in parts], device=base.device)
    blank = base.canvas([part.prompt for part in parts], length + rest)
    canvas, masks = blank.tokens.clone(), masks.to(base.device)
    scored = slice(blank.response.start, blank.response.start + length)
    canvas[:, scored] = tokens.masked_fill(masks, base.mask_id)
    hidden = base.predict(replace(blank, tokens=canvas)).hidden[:, scored][masks]
    wanted = tokens[masks][:, None]
    found = torch.empty(len(wanted), dtype=torch.float64, device=base.device)
    for part in in_parts(len(wanted), base.vocab_size):
        log_probs = draw.log_probs(base.unembed(hidden[part]))
        found[part] = log_probs.gather(-1, wanted[part])[:, 0]
    sums = torch.zeros(masks.shape, dtype=torch.float64, device=base.device)
    sums[masks] = found
    return sums.sum(-1).cpu()
