"""Guides and judges of others: weights with code in them are refused, and nothing of it is run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dlmjoint.errors import LoadError
from dlmjoint.evaluation.judges.judge import language_judge
from dlmjoint.models.causal import Autoregressive
from dlmjoint.models.transformer import TransformerBase
from tests.conftest import CHECKPOINTS
from tests.hostile import Hostile

LOADERS: list[Callable[[TransformerBase, str], Any]] = [
    lambda base, name: Autoregressive.beside(base, name),
    lambda base, name: language_judge(name, "cpu"),
]


@pytest.mark.parametrize("load", LOADERS, ids=["guide", "judge"])
def test_a_model_with_code_in_its_weights_is_refused_and_not_run(
    tmp_path: Path, golden_dream: TransformerBase, load: Callable[[TransformerBase, str], Any]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(CHECKPOINTS / "tiny-judge", folder)
    (folder / "model.safetensors").unlink()
    torch.save({"a": Hostile(tmp_path / "made")}, folder / "pytorch_model.bin")
    with pytest.raises(LoadError, match=rf"{folder}: .*nothing of it was run"):
        load(golden_dream, str(folder))
    assert not (tmp_path / "made").exists()
