"""Train a small language model from nothing, or on from a folder.

A run is a pure function of its arguments and its start; where it ended, and what it saw, is written
beside the weights, so that another run goes on from there. Optimizers are not kept: their memory is
some tens of steps long, which the warm-up of a hundred covers.
"""

import copy
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import lightning as L
import torch
from jaxtyping import Int
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dlmjoint.disk.atomic import sweep, whole_files
from dlmjoint.disk.provenance import write_json, write_provenance
from dlmjoint.models.dream import Dream, DreamConfig, DreamNetwork
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.pretrain.muon import Muon
from dlmjoint.pretrain.objective import Objective

log = logging.getLogger(__name__)

WARM_UP = 100
"""Steps."""
REPORT = 100
"""Steps between two saves."""
HISTORY = "training.json"
Precision = Literal["32-true", "bf16-mixed"]
"""Of the products: bf16-mixed multiplies in bfloat16 and keeps the weights in float32."""
Stored = Literal["float32", "bfloat16"]
"""Element type of the weights in a folder."""
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")

Examples = IterableDataset[tuple[Int[Tensor, " L"], int]]
"""An endless stream of (canvas, columns up to the question's end)."""


@dataclass(frozen=True)
class Size:
    """How large a model is."""

    hidden_size: int
    """Width D."""
    intermediate_size: int
    """Width of the gated MLP."""
    num_layers: int
    """Blocks."""
    num_heads: int
    """Attention heads."""
    num_kv_heads: int
    """Key/value heads."""
    vocab_size: int
    """Logits: at least as many as the tokenizer has ids."""

    def settings(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """The values of a Qwen2 or Dream config, with the tokenizer's ids."""
        return {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": False,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }


@dataclass(frozen=True)
class Schedule:
    """Warm-up, a constant rate, then a linear decay to zero."""

    steps: int
    """Updates."""
    batch_size: int
    """Examples per update."""
    learning_rate: float
    """AdamW's peak for embeddings, head, norms and biases; Muon's is six times it."""
    cooldown: int
    """Updates at the end over which the rate falls to zero; a run that another goes on from has 0."""

    def factor(self, step: int) -> float:
        """The learning rate of an update, as a share of the peak."""
        warm = min((step + 1) / WARM_UP, 1.0)
        return min(warm, (self.steps - step) / self.cooldown) if self.cooldown else warm


@dataclass(frozen=True)
class History:
    """What a folder's weights have seen, one entry a run, oldest first."""

    runs: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, folder: Path | None) -> Self:
        """The history in a folder; empty where there is none."""
        if folder is None or not (folder / HISTORY).exists():
            return cls()
        return cls(tuple(json.loads((folder / HISTORY).read_text(encoding="utf-8"))))

    @property
    def examples(self) -> int:
        """Examples seen so far: the number of the next one."""
        return self.runs[-1]["curve"][-1]["examples"] if self.runs else 0


class Pretraining(L.LightningModule):
    """Muon for the blocks' matrices, AdamW for everything else."""

    def __init__(
        self,
        objective: Objective,
        folder: Path,
        schedule: Schedule,
        history: History,
        first: int,
        stored: Stored,
    ) -> None:
        super().__init__()
        assert isinstance(objective.network, PreTrainedModel)
        self.objective, self.network = objective, objective.network.requires_grad_(True)
        self.folder, self.schedule, self.history, self.first = folder, schedule, history, first
        self.stored = getattr(torch, stored)
        self.automatic_optimization = False
        self.recent: list[float] = []
        self.curve: list[dict[str, float]] = []
        self.began = time.perf_counter()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """One update of both optimizers."""
        loss = self.objective.loss(*batch)
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
        done = batch_idx + 1
        if done % REPORT == 0 or done == self.schedule.steps:
            self.save(done)

    def save(self, done: int) -> None:
        """Write the weights and their history after some steps."""
        mean = sum(self.recent) / len(self.recent)
        self.recent.clear()
        log.info("step %d of %d: %.4f nats per token", done, self.schedule.steps, mean)
        self.curve.append(
            {
                "examples": self.first + done * self.schedule.batch_size,
                "nats": round(mean, 4),
                "seconds": round(time.perf_counter() - self.began),
            }
        )
        run = {
            "learning_rate": self.schedule.learning_rate,
            "batch_size": self.schedule.batch_size,
            "cooldown": self.schedule.cooldown,
            "curve": self.curve,
        }
        with whole_files(self.folder) as temporary:
            # A copy: the run goes on in float32.
            copy.deepcopy(self.network).to(self.stored).save_pretrained(temporary)
            write_json(temporary / HISTORY, [*self.history.runs, run])

    def configure_optimizers(self):
        """The two optimizers under one schedule."""
        blocks = [p for n, p in self.network.named_parameters() if ".layers." in n and p.ndim == 2]
        chosen = set(map(id, blocks))
        rest = [p for p in self.network.parameters() if id(p) not in chosen]
        rate, factor = self.schedule.learning_rate, self.schedule.factor
        optimizers = [
            Muon(blocks, lr=6 * rate, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        return optimizers, [torch.optim.lr_scheduler.LambdaLR(o, factor) for o in optimizers]


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


def new_base(folder: Path, size: Size) -> Dream:
    """An untrained Dream for the tokenizer in its folder."""
    tokenizer = Dream.load_tokenizer(folder)
    assert tokenizer is not None
    mask_id = tokenizer.get_vocab()["<|mask|>"]
    config = DreamConfig(**size.settings(tokenizer), mask_token_id=mask_id)
    base = Dream(DreamNetwork(config), tokenizer, name=str(folder))
    initialise(base.network)
    return base


def started_base(folder: Path, start: Path) -> TransformerBase:
    """The base of another folder, to be trained on in this one; its tokenizer is copied."""
    base = load_base(start)
    base.name = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        (folder / name).write_bytes((start / name).read_bytes())
    return base


def train(
    objective: Objective,
    examples: Examples,
    folder: Path,
    schedule: Schedule,
    *,
    arguments: dict[str, object],
    history: History = History(),
    first: int = 0,
    precision: Precision = "32-true",
    stored: Stored = "float32",
) -> None:
    """Train an objective's network on a stream and write it, its history and its provenance.

    `first` is the number of the stream's first example. bf16-mixed is twice as fast on CPUs with
    AVX512-BF16, and far slower on those without.
    """
    sweep(folder)
    write_provenance(folder, arguments)  # first: a run may be stopped at any of its saves
    module = Pretraining(objective, folder, schedule, history, first, stored)
    # torch's fused attention on CPUs takes a third of a step in its backward, this one a twentieth.
    module.network.set_attn_implementation("eager")
    trainer = L.Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=2 * schedule.steps,  # Lightning counts each optimizer's step
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[TQDMProgressBar(refresh_rate=100)],
    )
    trainer.fit(module, DataLoader(examples, batch_size=schedule.batch_size))
    module.network.eval()
    log.info("wrote %s", folder)
