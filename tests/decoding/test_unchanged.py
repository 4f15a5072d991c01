"""Random greedy policies write what they wrote when decoding still asked the host at every step.

The published tiny sampler has been trained on since: its world's digests were taken anew by code that still wrote
all 300 of the old ones with the old sampler.
"""

import json

import pytest

from tests.conftest import GOLDEN
from tests.decoding.policies import written
from tests.decoding.worlds import World

DIGESTS = json.loads((GOLDEN / "policies.json").read_text())


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 300), marks=pytest.mark.slow)])
def test_random_policies_write_the_tokens_they_always_wrote(
    world: World, seeds: range, request: pytest.FixtureRequest
) -> None:
    digests = DIGESTS[request.node.callspec.params["world"]].split()
    changed = [seed for seed in seeds if written(world, seed) != digests[seed]]
    assert not changed
