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
    for part in _batches(answers, samples, seed, batch_size):
        prompts = [answers[number].prompt for number, _, _ in part]
        masks = torch.stack([mask for _, mask, _ in part])
        rows = torch.tensor([answers[number].tokens for number, _, _ in part])
        found = _masked_log_probs(base, draw, prompts, rows, masks)
        for (number, _, weight), value in zip(part, found.tolist(), strict=True):
            totals[number] += weight * value
    return totals


def _check(base: Base, answer: Answer) -> None:
    if base.attention.block_length is not None:
        raise ConfigError(
            f"a likelihood here masks tokens anywhere in an answer; {base.name} writes block after block "
            "and knows no masks in finished blocks: take tasks that generate"
        )
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
    answers: Sequence[Answer], samples: int, seed: int, batch_size: int
) -> Iterator[list[tuple[int, Bool[Tensor, " L"], float]]]:
    """Masked answers, by number, with their weights: batches of answers of one length."""
    order = sorted(range(len(answers)), key=lambda i: (len(answers[i].tokens), answers[i].prompt))
    batch: list[tuple[int, Bool[Tensor, " L"], float]] = []
    for number in order:
        answer = answers[number]
        own = derive_seed(seed, "likelihood", repr(answer.prompt))
        masks, weights = masks_of(len(answer.tokens), samples, own)
        for mask, weight in zip(masks, weights.tolist(), strict=True):
            if batch and (len(batch) == batch_size or len(batch[0][1]) != len(mask)):
                yield batch
                batch = []
            batch.append((number, mask, weight))
    if batch:
        yield batch


@torch.inference_mode()
def _masked_log_probs(
    base: Base,
    draw: Draw,
    prompts: Sequence[Sequence[int]],
    tokens: Tensor,
    masks: Bool[Tensor, "B N"],
) -> Float[Tensor, " B"]:
    """Per row, the summed log-probability of the masked tokens, given the others."""
    blank = base.canvas(prompts, tokens.shape[1])
    canvas, tokens, masks = blank.tokens.clone(), tokens.to(base.device), masks.to(base.device)
    canvas[:, blank.response] = tokens.masked_fill(masks, base.mask_id)
    hidden = base.predict(replace(blank, tokens=canvas)).hidden[:, blank.response][masks]
    wanted = tokens[masks][:, None]
    found = torch.empty(len(wanted), dtype=torch.float64, device=base.device)
    for part in in_parts(len(wanted), base.vocab_size):
        log_probs = draw.log_probs(base.unembed(hidden[part]))
        found[part] = log_probs.gather(-1, wanted[part])[:, 0]
    sums = torch.zeros(masks.shape, dtype=torch.float64, device=base.device)
    sums[masks] = found
    return sums.sum(-1).cpu()
