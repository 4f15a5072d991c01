"""In mixed precision the layer's own values have one element type, from end to end."""

import warnings
from pathlib import Path

import pytest
import torch

from dlmjoint.distill.data import TrajectoryData
from dlmjoint.distill.module import Distillation
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from tests.distill.trainer import BASE, small_trainer


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_fit_in_any_precision_takes_no_slow_path(
    tmp_path: Path, folder: Path, precision: str, dtype: str
) -> None:
    module = Distillation(BASE, depth=2, dtype=dtype)
    data = TrajectoryData(folder, batch_size=4, window=4, val_batches=1)
    trainer = small_trainer(tmp_path, 2, precision=precision, inference_mode=False)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.fit(module, data)
    assert not [one for one in told if "fused" in str(one.message) or "ismatch" in str(one.message)]


def test_under_autocast_every_norm_of_the_layer_reads_its_weights_type(
    random_dream: Dream, random_sampler: JointSampler
) -> None:
    seen: dict[str, set[torch.dtype]] = {}

    def note(name: str):
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen.setdefault(name, set()).add(inputs[0].dtype)

        return hook

    for name, part in random_sampler.named_modules():
        if "norm" in type(part).__name__.lower():
            part.register_forward_pre_hook(note(name))
    tokens = torch.arange(1, 7)[None]
    hidden, _ = random_dream.score(tokens)
    attends = torch.ones_like(tokens, dtype=torch.bool)
    positions = torch.arange(6)[None]
    with torch.autocast("cpu", torch.bfloat16):
        out = random_sampler(random_dream.embed(tokens), hidden, positions, attends)
    assert out.dtype == torch.float32
    assert len(seen) >= 5
    assert set().union(*seen.values()) == {torch.float32}, seen
