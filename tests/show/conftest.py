"""Scenes shared by the tests of what is shown."""

import pytest

from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from tests.conftest import CHECKPOINTS
from tests.show.scenes import HOSTILE, Scene, scripted


@pytest.fixture(scope="session")
def tiny() -> TransformerBase:
    """The published tiny Dream."""
    return load_base(CHECKPOINTS / "tiny-dream")


@pytest.fixture(scope="session")
def hostile(tiny: TransformerBase) -> Scene:
    """A decoding of text that would break a page or a terminal that took it at its word."""
    return scripted(tiny, HOSTILE)
