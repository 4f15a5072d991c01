"""Trajectories of random tokens in random orders, where only their size matters."""

from dataclasses import replace
from pathlib import Path

import torch

from dlmjoint.decoding.policy import Policy
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.trajectories.generate import manifest_of
from dlmjoint.trajectories.store import Manifest, TrajectoryStore
from dlmjoint.types import Trajectory


def random_trajectories(base: TransformerBase, examples: int, length: int) -> list[Trajectory]:
    """Responses of `length` tokens behind a prompt of one."""
    generator = torch.Generator().manual_seed(0)
    below = base.vocab_size // 2  # plain tokens: special ones have the last ids
    return [
        Trajectory(
            example_id=example,
            prompt=torch.tensor([base.eos_id]),
            response=torch.randint(below, (length,), generator=generator),
            order=torch.randperm(length, generator=generator),
            log_probs=-torch.rand(length, dtype=torch.float64, generator=generator),
        )
        for example in range(examples)
    ]


def random_manifest(base: TransformerBase, examples: int, length: int) -> Manifest:
    """What a folder of them says of itself."""
    prompts = [[base.eos_id]] * examples
    made = manifest_of(base, Policy(), prompts, length, shard_size=examples, seed=0)
    return replace(made, policy="random tokens", prompts="random")


def random_store(
    base: TransformerBase, folder: Path, examples: int, length: int
) -> TrajectoryStore:
    """A folder of them, in one shard."""
    store = TrajectoryStore.create(folder, random_manifest(base, examples, length))
    store.write(0, random_trajectories(base, examples, length))
    return store
