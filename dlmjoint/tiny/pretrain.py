"""Train the tiny world's two language models: the Dream base and the autoregressive judge.

Both see fresh problems only (no text is repeated), both are written as model folders that
transformers and `dlmjoint.load_base` read. A run is a pure function of its arguments; it is cheap
enough to be repeated rather than resumed.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Int
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from dlmjoint.models.dream import Dream, DreamConfig, DreamNetwork
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.provenance import write_provenance
from dlmjoint.tiny.corpus import CANVAS, problem
from dlmjoint.tiny.tokenizer import save_tokenizer
from dlmjoint.types import Canvas

log = logging.getLogger(__name__)


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


class Pretraining(L.LightningModule):
    """Muon for the blocks' matrices, AdamW for everything else, a linear schedule to zero."""

    def __init__(
        self, network: PreTrainedModel, folder: Path, learning_rate: float, steps: int
    ) -> None:
        super().__init__()
        self.network, self.folder = network, folder
        self.learning_rate, self.steps = learning_rate, steps
        self.automatic_optimization = False
        self.recent: list[float] = []

    @abstractmethod
    def loss(self, tokens: Int[Tensor, "B L"], prompts: Int[Tensor, " B"]) -> Tensor:
        """Nats per predicted token."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """One update of both optimizers."""
        loss = self.loss(*batch)
        optimizers, schedulers = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizers, list)
        assert isinstance(schedulers, list)
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()  # pyright: ignore[reportCallIssue]
        self.recent.append(float(loss.detach()))
        if (batch_idx + 1) % 500 == 0:
            self.network.save_pretrained(self.folder)
            mean = sum(self.recent) / len(self.recent)
            log.info("step %d of %d: %.4f nats per token", batch_idx + 1, self.steps, mean)
            self.recent.clear()

    def configure_optimizers(self):
        """The two optimizers, each warmed up over 100 steps and decayed linearly to zero."""
        blocks = [p for n, p in self.network.named_parameters() if ".layers." in n and p.ndim == 2]
        chosen = set(map(id, blocks))
        rest = [p for p in self.network.parameters() if id(p) not in chosen]
        optimizers = [
            torch.optim.Muon(blocks, lr=6 * self.learning_rate, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=self.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]

        def factor(step: int) -> float:
            return min((step + 1) / 100, max(self.steps - step, 0) / self.steps)

        return optimizers, [torch.optim.lr_scheduler.LambdaLR(o, factor) for o in optimizers]


class MaskedDiffusion(Pretraining):
    """Masks a share t ~ U(0, 1) of each row's response and predicts it (Dream's objective with a
    constant weight instead of 1/t, which has less variance and the same optimum)."""

    def __init__(
        self,
        base: TransformerBase,
        folder: Path,
        learning_rate: float,
        steps: int,
        prompted: float,
        from_left: float,
    ) -> None:
        super().__init__(base.network.requires_grad_(True), folder, learning_rate, steps)
        self.base, self.prompted, self.from_left = base, prompted, from_left

    def loss(self, tokens: Int[Tensor, "B L"], prompts: Int[Tensor, " B"]) -> Tensor:
        """See `Pretraining.loss`. A share of the rows keeps its question visible; another share is
        masked from the left up to a random column, as low-entropy decoding leaves it after it has
        written the end-of-text tail."""
        rows, length = tokens.shape
        columns = torch.arange(length)
        kind = torch.rand(rows, 1)
        first = torch.where(kind[:, 0] < self.prompted, prompts, 1)[:, None]
        # Stratified over the batch: every batch sees all noise levels.
        share = ((torch.arange(rows) + torch.rand(rows)) / rows)[torch.randperm(rows), None]
        edge = torch.randint(length // 3, length + 1, (rows, 1))
        from_left = kind >= 1 - self.from_left
        hidden_cells = torch.where(from_left, columns < edge, torch.rand(rows, length) < share)
        hidden_cells &= columns >= first
        noisy = tokens.masked_fill(hidden_cells, self.base.mask_id)
        canvas = Canvas(
            noisy, torch.ones_like(noisy, dtype=torch.bool), slice(1, length), self.base.mask_id
        )
        logits = self.base.unembed(self.base.predict(canvas).hidden[hidden_cells])
        return cross_entropy(logits, tokens[hidden_cells])


class NextToken(Pretraining):
    """The judge's objective: next token, up to and including the first end-of-text."""

    def __init__(
        self,
        network: Qwen2ForCausalLM,
        eos_id: int,
        folder: Path,
        learning_rate: float,
        steps: int,
    ) -> None:
        super().__init__(network, folder, learning_rate, steps)
        self.eos_id = eos_id

    def loss(self, tokens: Int[Tensor, "B L"], prompts: Int[Tensor, " B"]) -> Tensor:
        """See `Pretraining.loss`."""
        logits = self.network(input_ids=tokens[:, :-1]).logits
        targets = tokens[:, 1:]
        wanted = (targets == self.eos_id).long().cumsum(-1) <= 1
        return cross_entropy(logits[wanted], targets[wanted])


def _settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What both models' configs share: 512 logits, more than the tokenizer has, and its ids."""
    return {
        "vocab_size": 512,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


@torch.no_grad()
def initialise(network: PreTrainedModel) -> None:
    """Start values under which small models learn to copy within hundreds of steps.

    Matrices are scaled by their fan-in, outputs of the blocks start small, and the head starts as
    a copy of the embedding (the two stay separate weights): from an independent start the base had
    not learned to repeat an item's name after 3,500 steps, from this one it had after 150.
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2:
            continue
        inner = name.endswith(("o_proj.weight", "down_proj.weight"))
        nn.init.normal_(parameter, std=0.02 if inner else parameter.shape[1] ** -0.5)
    head = network.get_output_embeddings()
    assert head is not None
    head.weight.copy_(network.get_input_embeddings().weight)


def _train(
    module: Pretraining, tokenizer: PreTrainedTokenizerBase, batch_size: int, first: int = 0
) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=2 * module.steps,  # Lightning counts each optimizer's step
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[TQDMProgressBar(refresh_rate=100)],
    )
    trainer.fit(module, DataLoader(Problems(tokenizer, seed=0, first=first), batch_size=batch_size))


def _save(network: PreTrainedModel, folder: Path, arguments: dict[str, object]) -> None:
    network.eval().save_pretrained(folder)
    write_provenance(folder, arguments)
    log.info("wrote %s", folder)


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
        tokenizer = Dream.load_tokenizer(folder)
        assert tokenizer is not None
        config = DreamConfig(
            **_settings(tokenizer),
            mask_token_id=tokenizer.get_vocab()["<|mask|>"],
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            num_key_value_heads=num_kv_heads,
        )
        base = Dream(DreamNetwork(config), tokenizer, name=str(folder))
        initialise(base.network)
    else:
        base = load_base(start)
        base.name = str(folder)
        tokenizer = base.tokenizer
        assert tokenizer is not None
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            (folder / name).write_bytes((start / name).read_bytes())
    _train(
        MaskedDiffusion(base, folder, learning_rate, steps, prompted, from_left),
        tokenizer,
        batch_size,
        first,
    )
    _save(base.network, folder, arguments)


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
    config = Qwen2Config(
        **_settings(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
    )
    network = Qwen2ForCausalLM(config)
    initialise(network)
    _train(
        NextToken(network, tokenizer.get_vocab()["<|endoftext|>"], folder, learning_rate, steps),
        tokenizer,
        batch_size,
    )
    tokenizer.save_pretrained(folder)
    _save(network, folder, arguments)
