"""The norm in one operation."""

import pytest
import torch
from torch import nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from dlmjoint.models.parts.norm import FusedRMSNorm, fuse_norms
from dlmjoint.models.sdar import Sdar


def test_a_fused_norm_has_the_weights_and_in_float32_the_numbers_of_transformers() -> None:
    theirs = Qwen2RMSNorm(8, eps=1e-6)
    nn.init.normal_(theirs.weight)
    ours = fuse_norms(nn.Sequential(theirs))
    assert isinstance(ours.get_submodule("0"), FusedRMSNorm)
    assert list(ours.state_dict()) == ["0.weight"]
    x = torch.randn(3, 8)
    assert torch.equal(ours(x), theirs(x))


def test_every_norm_of_a_base_is_fused() -> None:
    norms = [m for m in Sdar.random().network.modules() if type(m).__name__.endswith("RMSNorm")]
    assert len(norms) == 2 * 4 + 1  # around attention and MLP, of queries and of keys; at the end
    assert all(isinstance(norm, FusedRMSNorm) for norm in norms)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_smaller_inputs_than_weights_are_brought_to_the_weights_type(dtype: torch.dtype) -> None:
    assert FusedRMSNorm(8)(torch.randn(3, 8).to(dtype)).dtype == torch.float32
