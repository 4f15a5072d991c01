"""The worlds as fixtures."""

import pytest

from dlmjoint.models.dream import Dream
from tests.decoding.worlds import WORLDS, World, random_world


@pytest.fixture(scope="module", params=list(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    """Both families with random weights, and the published tiny models."""
    return WORLDS[request.param]()


@pytest.fixture(scope="module")
def dream() -> World:
    return random_world(Dream)
