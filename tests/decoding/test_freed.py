"""What a turn holds, hidden states of the whole canvas among it, is not left to the garbage collector."""

import gc

import pytest
import torch

import dlmjoint
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.guides.verified import Verified
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from tests.decoding.policies import random_policy
from tests.decoding.worlds import LENGTH, PROMPTS, World


@pytest.mark.parametrize("seed", range(12))
def test_random_policies_leave_no_tensor_in_a_cycle(seed: int, dream: World) -> None:
    assert _left_over(random_policy(seed, dream), dream) == []


@pytest.mark.parametrize("order", ["exact", "drafted"])
def test_neither_do_verified_rounds_nor_plain_decoding(order: str, dream: World) -> None:
    plain = Policy()
    verified = Policy(3, refine=Joint(dream.sampler), guide=Verified(order))
    assert _left_over(plain, dream) == _left_over(verified, dream) == []


def test_no_step_holds_a_graph_of_the_sampler(dream: World) -> None:
    policy = Policy(4, refine=Joint(dream.sampler), draw=Draw())
    out = dlmjoint.generate(dream.base, PROMPTS, policy, max_new_tokens=LENGTH, seed=2)
    assert any(weights.requires_grad for weights in dream.sampler.parameters())
    assert not any(each.log_probs.requires_grad for each in out.trajectories)


def _left_over(policy: Policy, world: World) -> list[torch.Size]:
    """Shapes of the tensors that only a collection would free after a decode."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        dlmjoint.generate(world.base, PROMPTS, policy, max_new_tokens=LENGTH, seed=2)
        gc.collect()
        return [each.shape for each in gc.garbage if isinstance(each, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
