"""The main job, end to end, by its commands: trajectories, a fitted sampler, a table."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import dlmjoint
from dlmjoint import cli
from dlmjoint.code.checks import read
from dlmjoint.models.llada import LladaConfig, LladaNetwork
from dlmjoint.tiny.corpus import CANVAS, agreement
from tests.conftest import CHECKPOINTS, GOLDEN

GENERATE = """
base: {base}
output: {root}/trajectories
prompts: {{class_path: dlmjoint.trajectories.prompts.Unconditional, init_args: {{n: 24}}}}
max_new_tokens: 8
shard_size: 8
device: cpu
"""
FIT = """
trainer: {{max_steps: 4, val_check_interval: 2, default_root_dir: "{root}/fit", accelerator: cpu,
  enable_progress_bar: false}}
model: {{base: "{base}", depth: 2, export: "{root}/sampler"}}
data: {{path: "{root}/trajectories", batch_size: 4, window: 3, val_batches: 1}}
"""
EVAL = """
base: {base}
run_dir: {root}/eval
decoders:
  exact: {{}}
  marginals-k2: {{commits_per_forward: 2}}
  fitted-k2:
    commits_per_forward: 2
    refine: {{class_path: dlmjoint.decoding.refine.Trained, init_args: {{sampler: "{root}/sampler"}}}}
tasks:
  - class_path: dlmjoint.evaluation.tasks.unconditional.Unconditional
    init_args:
      n: 12
      max_new_tokens: 8
      metrics:
        - class_path: dlmjoint.evaluation.metrics.agreement.CorpusAgreement
        - class_path: dlmjoint.evaluation.metrics.trajectory_kl.TrajectoryKL
"""


def _dream(folder: Path) -> Path:
    return GOLDEN / "dream"


def _llada(folder: Path) -> Path:
    """A random LLaDA with a tokenizer of bytes, as published: beginning-of-text is known to the
    tokenizer alone, and there are more logits than tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end, begin, mask = "<|endoftext|>", "<|startoftext|>", "<|mdm_mask|>"
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=end, mask_token=mask
    )
    fast.save_pretrained(folder)
    config = LladaConfig(
        vocab_size=272,
        d_model=32,
        mlp_hidden_size=64,
        n_layers=2,
        n_heads=4,
        max_sequence_length=64,
        init_std=0.3,
        mask_token_id=fast.mask_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LladaNetwork(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", [_dream, _llada])
def test_generate_fit_and_eval_work_together(
    tmp_path: Path, family: Callable[[Path], Path]
) -> None:
    base = family(tmp_path / "base")
    for verb, text in (("generate", GENERATE), ("fit", FIT), ("eval", EVAL)):
        config = tmp_path / f"{verb}.yaml"
        config.write_text(text.format(base=base, root=tmp_path))
        cli.main([verb, "--config", str(config)])
    scores = json.loads((tmp_path / "eval" / "scores.json").read_text())
    assert set(scores) == {"decoders", "ceiling", "pairs", "aup", "provenance"}
    assert set(scores["decoders"]) == {"exact", "marginals-k2", "fitted-k2"}
    exact, fitted = scores["decoders"]["exact"], scores["decoders"]["fitted-k2"]
    assert exact["tasks"]["unconditional"]["trajectory_kl"]["value"] == pytest.approx(0, abs=1e-5)
    assert exact["cost"]["tokens_per_forward"] == 1
    assert fitted["cost"]["tokens_per_forward"] == 2
    assert fitted["cost"]["sampler_passes"] == fitted["cost"]["base_forwards"]
    for name in ("report.html", "quality.png", "config.yaml"):
        assert (tmp_path / "eval" / name).stat().st_size > 0


@pytest.mark.skipif(
    not (CHECKPOINTS / "tiny-joint").exists(), reason="the published sampler is not in this tree"
)
def test_the_published_sampler_belongs_to_the_published_base_and_beats_the_marginals() -> None:
    base = dlmjoint.load_base(CHECKPOINTS / "tiny-dream")
    sampler = dlmjoint.JointSampler.from_pretrained(CHECKPOINTS / "tiny-joint")
    shares = []
    for policy in (dlmjoint.Policy(4), dlmjoint.Policy(4, refine=dlmjoint.Joint(sampler))):
        texts = dlmjoint.generate(base, 64, policy, max_new_tokens=CANVAS - 1).texts
        shares.append(sum(agreement(text).item for text in texts) / 64)
    assert shares[1] > shares[0] + 0.2


def test_the_published_code_sampler_writes_functions_where_the_marginals_write_none() -> None:
    sampler = dlmjoint.JointSampler.from_pretrained(CHECKPOINTS / "code-joint")
    base = sampler.load_base(name=CHECKPOINTS / "code-dream")
    counts = []
    for policy in (dlmjoint.Policy(4), dlmjoint.Policy(4, refine=dlmjoint.Joint(sampler))):
        texts = dlmjoint.generate(base, 64, policy, max_new_tokens=47).texts
        counts.append(sum(read(text).parses for text in texts))
    assert counts[1] > counts[0] + 2
