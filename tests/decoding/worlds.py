"""The worlds in which every way of decoding is tried: both families, random and trained."""

from dataclasses import dataclass

import dlmjoint
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.models.base import Base
from dlmjoint.models.causal import Autoregressive
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.llada import Llada
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from tests.conftest import CHECKPOINTS

PROMPTS = [[5, 6, 7, 8, 9], [5], [6, 7, 8]]
GREEDY = Draw(temperature=0)
LENGTH = 12


@dataclass(frozen=True)
class World:
    """A base, a sampler that changes every prediction, and a guide."""

    base: TransformerBase
    sampler: JointSampler
    guide: Autoregressive


def random_world(kind: type[TransformerBase]) -> World:
    base = kind.random()
    return World(base, JointSampler.from_base(base, gain=1.0).eval(), Autoregressive.random())


def _trained() -> World:
    base = load_base(CHECKPOINTS / "tiny-dream")
    sampler = JointSampler.from_pretrained(CHECKPOINTS / "tiny-joint")
    return World(base, sampler, Autoregressive.beside(base, CHECKPOINTS / "tiny-judge"))


WORLDS = {
    "random Dream": lambda: random_world(Dream),
    "random LLaDA": lambda: random_world(Llada),
    "tiny": _trained,
}


def sequences(base: Base, policy: Policy, length: int = LENGTH) -> list[list[int]]:
    return dlmjoint.generate(base, PROMPTS, policy, max_new_tokens=length, seed=2).sequences
