"""Train the tiny world's two language models: the Dream base and the autoregressive judge.

Both see fresh problems only (no text is repeated), both are written as model folders that
transformers and `dlmjoint.load_base` read.
"""

from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from dlmjoint.models.dream import Dream
from dlmjoint.pretrain.objective import MaskedDiffusion, NextToken
from dlmjoint.pretrain.tokenizer import save_tokenizer
from dlmjoint.pretrain.train import (
    History,
    Schedule,
    Size,
    initialise,
    new_base,
    started_base,
    train,
)
from dlmjoint.tiny.corpus import CANVAS, problem

VOCABULARY = 512
"""Logits of both models: one more than the tokenizer has ids."""


class Problems(IterableDataset[tuple[Int[Tensor, " L"], int]]):
    """An endless stream of (canvas, columns up to the question's end), each problem once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int, first: int = 0) -> None:
        self.tokenizer, self.seed, self.first = tokenizer, seed, first

    def __iter__(self) -> Iterator[tuple[Int[Tensor, " L"], int]]:
        index = self.first
        while True:
            one = problem(self.seed, index)
            question = self.tokenizer.encode(one.question, add_special_tokens=False)
            solution = self.tokenizer.encode(one.solution, add_special_tokens=False)
            ids = [self.tokenizer.bos_token_id, *question, *solution]
            ids += [self.tokenizer.eos_token_id] * (CANVAS - len(ids))
            yield torch.tensor(ids), 1 + len(question)
            index += 1


def pretrain_base(
    folder: Path,
    steps: int = 6_500,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    hidden_size: int = 128,
    intermediate_size: int = 352,
    num_layers: int = 4,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    prompted: float = 0.3,
    from_left: float = 0.3,
    start: Path | None = None,
    first: int = 0,
    seed: int = 0,
) -> None:
    """Train the tiny Dream and its tokenizer into `folder`.

    Args:
        folder: where config, weights and tokenizer are written.
        steps: updates.
        batch_size: problems per update; every problem is new.
        learning_rate: AdamW's peak for embeddings, head, norms and biases; Muon's is six times it.
        hidden_size: width D.
        intermediate_size: width of the gated MLP.
        num_layers: blocks.
        num_heads: attention heads.
        num_kv_heads: key/value heads.
        prompted: share of rows whose question stays visible.
        from_left: share of rows masked up to a random column.
        start: folder of a tiny Dream to go on from, sizes and tokenizer included.
        first: number of the first problem, so that a run that goes on sees new ones.
        seed: of initialisation and noise.
    """
    arguments = dict(locals())
    L.seed_everything(seed)
    if start is None:
        save_tokenizer(folder, (problem(0, index).text for index in range(20_000)))
        size = Size(hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, VOCABULARY)
        base = new_base(folder, size)
    else:
        base = started_base(folder, start)
    assert base.tokenizer is not None
    train(
        MaskedDiffusion(base, prompted, from_left),
        Problems(base.tokenizer, seed=0, first=first),
        folder,
        Schedule(steps, batch_size, learning_rate, cooldown=steps),
        arguments=arguments,
        history=History.of(start),
        first=first,
    )


def pretrain_judge(
    folder: Path,
    base: Path = Path("checkpoints/tiny-dream"),
    steps: int = 1_600,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    hidden_size: int = 128,
    intermediate_size: int = 352,
    num_layers: int = 3,
    num_heads: int = 4,
    seed: int = 0,
) -> None:
    """Train the autoregressive judge into `folder`: the same tokenizer, the same corpus.

    Args:
        folder: where config, weights and tokenizer are written.
        base: the folder whose tokenizer the judge shares.
        steps: updates.
        batch_size: problems per update; every problem is new.
        learning_rate: AdamW's peak for embeddings, head, norms and biases; Muon's is six times it.
        hidden_size: width D.
        intermediate_size: width of the gated MLP.
        num_layers: blocks.
        num_heads: attention heads.
        seed: of initialisation.
    """
    arguments = dict(locals())
    L.seed_everything(seed)
    tokenizer = Dream.load_tokenizer(base)
    assert tokenizer is not None
    size = Size(hidden_size, intermediate_size, num_layers, num_heads, num_heads, VOCABULARY)
    network = Qwen2ForCausalLM(Qwen2Config(**size.settings(tokenizer)))
    initialise(network)
    train(
        NextToken(network, tokenizer.get_vocab()["<|endoftext|>"]),
        Problems(tokenizer, seed=0),
        folder,
        Schedule(steps, batch_size, learning_rate, cooldown=steps),
        arguments=arguments,
    )
    tokenizer.save_pretrained(folder)
