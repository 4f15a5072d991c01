"""Train the base of the code world: a Dream on short Python functions."""

from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from dlmjoint.code import corpus as functions
from dlmjoint.code.card import write_card
from dlmjoint.pretrain.objective import MaskedDiffusion
from dlmjoint.pretrain.tokenizer import save_tokenizer
from dlmjoint.pretrain.train import (
    History,
    Precision,
    Schedule,
    Size,
    Stored,
    new_base,
    started_base,
    train,
)

CANVAS = 48
"""Columns: a beginning-of-text, a function, and at least one end-of-text."""


class Functions(IterableDataset[tuple[Int[Tensor, " L"], int]]):
    """An endless stream of (canvas, 1) over a corpus, in a new order every epoch.

    Example i is a function of the seed and i alone, so that a run may begin with any of them.
    """

    def __init__(self, canvases: Int[Tensor, "N L"], seed: int, first: int = 0) -> None:
        self.canvases, self.seed, self.first = canvases, seed, first

    def __iter__(self) -> Iterator[tuple[Int[Tensor, " L"], int]]:
        index, count = self.first, len(self.canvases)
        while True:
            epoch, begin = divmod(index, count)
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            for place in torch.randperm(count, generator=generator)[begin:].tolist():
                yield self.canvases[place].long(), 1
                index += 1


def canvases(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, length: int = CANVAS
) -> Int[Tensor, "N L"]:
    """The canvases of the texts that fit one, in their order, as int16; the others are left out."""
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    fitting = [ids for ids in encoded if len(ids) <= length - 2]
    bos_id, eos_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert isinstance(bos_id, int)
    assert isinstance(eos_id, int)
    found = torch.full((len(fitting), length), eos_id, dtype=torch.int16)
    found[:, 0] = bos_id
    for row, ids in zip(found, fitting, strict=True):
        row[1 : 1 + len(ids)] = torch.tensor(ids, dtype=torch.int16)
    return found


def pretrain_base(
    folder: Path,
    corpus: Path = Path("runs/code/corpus"),
    steps: int = 100_000,
    cooldown: int = 0,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    vocab_size: int = 3072,
    hidden_size: int = 192,
    intermediate_size: int = 512,
    num_layers: int = 5,
    num_heads: int = 6,
    num_kv_heads: int = 2,
    from_left: float = 0.2,
    holed: float = 0.1,
    start: Path | None = None,
    precision: Precision = "32-true",
    stored: Stored = "float32",
    seed: int = 0,
) -> None:
    """Train the code base, and its tokenizer if it is new, into `folder`.

    Args:
        folder: where config, weights, tokenizer and history are written, every 100 steps.
        corpus: folder that `train.code_corpus` has filled.
        steps: updates.
        cooldown: updates at the end over which the rate falls to zero; 0 keeps it, to go on later.
        batch_size: functions per update.
        learning_rate: AdamW's peak for embeddings, head, norms and biases; Muon's is six times it.
        vocab_size: logits; the new tokenizer has one id less.
        hidden_size: width D.
        intermediate_size: width of the gated MLP.
        num_layers: blocks.
        num_heads: attention heads.
        num_kv_heads: key/value heads.
        from_left: share of rows masked up to a random column.
        holed: share of rows masked in one run of columns.
        start: folder of a code base to go on from, sizes and tokenizer included; the functions it
            has seen are not shown again before all others were.
        precision: 32-true, or bf16-mixed on CPUs that have AVX512-BF16.
        stored: element type of the weights in the folder; training itself is in float32.
        seed: of initialisation, order and noise.
    """
    arguments = dict(locals())
    history = History.of(start)
    L.seed_everything(seed + history.examples)  # a run that goes on draws other noise
    texts = functions.read(corpus, "train")
    if start is None:
        save_tokenizer(folder, texts, vocab_size - 1)
        size = Size(hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, vocab_size)
        base = new_base(folder, size)
    else:
        base = started_base(folder, start)
    assert base.tokenizer is not None
    # What the weights are made of travels with them.
    (folder / functions.MANIFEST).write_bytes((corpus / functions.MANIFEST).read_bytes())
    rows = canvases(texts, base.tokenizer)
    train(
        MaskedDiffusion(base, prompted=0.0, from_left=from_left, holed=holed),
        Functions(rows, seed, history.examples),
        folder,
        Schedule(steps, batch_size, learning_rate, cooldown),
        arguments=arguments,
        history=history,
        first=history.examples,
        precision=precision,
        stored=stored,
    )
    write_card(folder, CANVAS)
