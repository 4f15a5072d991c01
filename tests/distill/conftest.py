"""What the tests of training share."""

from pathlib import Path

import pytest

from dlmjoint.trajectories.generate import generate
from dlmjoint.trajectories.prompts import Unconditional
from tests.distill.trainer import BASE


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty exact trajectories of the golden base."""
    output = tmp_path_factory.mktemp("trajectories")
    generate(BASE, output, Unconditional(40), max_new_tokens=10, shard_size=16, device="cpu")
    return output
