"""A base, a judge and runs small enough for seconds: random weights, no download."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.evaluation.metrics.agreement import CorpusAgreement
from dlmjoint.evaluation.metrics.base import Metric
from dlmjoint.evaluation.metrics.mauve import Mauve
from dlmjoint.evaluation.metrics.nll import NLL
from dlmjoint.evaluation.metrics.trajectory_kl import TrajectoryKL
from dlmjoint.evaluation.tasks.unconditional import Unconditional
from dlmjoint.evaluation.tasks.word_problems import WordProblems
from dlmjoint.models.load import load_base

GOLDEN = Path(__file__).parents[1] / "golden" / "dream"

TEXT = Draw(forbid=("<|endoftext|>",))
"""A random base ends some texts at once, and MAUVE refuses empty texts."""


@pytest.fixture(scope="session")
def base():
    return load_base(GOLDEN)


@pytest.fixture(scope="session")
def judge(tmp_path_factory) -> str:
    """A random Qwen2 in a folder, with the base's tokenizer."""
    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=501,
        eos_token_id=500,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(GOLDEN / name, folder / name)
    return str(folder)


@dataclass(frozen=True)
class Setup:
    """An evaluation of two tasks."""

    decoders: dict[str, Policy]
    unconditional: Unconditional
    word_problems: WordProblems

    @property
    def tasks(self) -> list:
        return [self.unconditional, self.word_problems]


@pytest.fixture(scope="session")
def setup(judge) -> Setup:
    metrics: list[Metric] = [
        CorpusAgreement(),
        Mauve(judge, min_n=12, kmeans_seeds=2, resamples=50),
        NLL(judge),
        TrajectoryKL(batch_size=7),
    ]
    return Setup(
        decoders={"exact": Policy(), "marginals-k4": Policy(commits_per_forward=4)},
        unconditional=Unconditional(n=12, max_new_tokens=10, draw=TEXT, metrics=metrics),
        word_problems=WordProblems(n=5, max_new_tokens=6),
    )
