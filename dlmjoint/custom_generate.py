"""What transformers' `generate(..., custom_generate=SAMPLER)` calls: joint decoding of a network.

A published sampler's `custom_generate/generate.py` is three lines that come here.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.errors import ConfigError
from dlmjoint.models.files import ModelFiles
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import find_family
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.sampling import generate


def generate_jointly(
    model: PreTrainedModel,
    sampler: str | Path | JointSampler,
    inputs: Int[Tensor, "B P"] | None = None,
    *,
    input_ids: Int[Tensor, "B P"] | None = None,
    attention_mask: Int[Tensor, "B P"] | Bool[Tensor, "B P"] | None = None,
    max_new_tokens: int = 128,
    tokens_per_forward: int = 4,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    policy: Policy | None = None,
) -> Int[Tensor, "B L"]:
    """Prompts and responses, as transformers' `generate` returns them: padding left where it was.

    `model` is the network of a base, `base.network`; `attention_mask` is 0 on left padding. As
    elsewhere in transformers decoding is greedy unless `do_sample`; unlike there it depends on `seed`,
    not on the global generator. A `policy` replaces tokens_per_forward and the drawing, and gets the
    sampler as its `refine`. Raises ConfigError for a network that is no base's or a mask with gaps,
    MismatchError for another base's sampler.
    """
    ids = inputs if input_ids is None else input_ids
    if ids is None or (inputs is not None and input_ids is not None):
        raise ConfigError("give the prompts' ids once: as the first argument or as input_ids")
    if not isinstance(sampler, JointSampler):
        sampler = _sampler(str(sampler), model.dtype)
    if policy is None:
        draw = Draw(temperature=temperature if do_sample else 0.0, top_p=top_p)
        policy = Policy(tokens_per_forward, draw=draw)
    output = generate(
        base_of(model),
        _rows(ids, attention_mask),
        replace(policy, refine=Joint(sampler)),
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    written = torch.stack([trajectory.response for trajectory in output.trajectories])
    return torch.cat([ids, written.to(ids.device)], dim=1)


def base_of(network: PreTrainedModel) -> TransformerBase:
    """The base around a network that `load_base` has loaded, with its tokenizer.

    Raises ConfigError for a network of another kind.
    """
    kind, place = network.config.model_type, network.config.name_or_path
    name = place or type(network).__name__
    family = find_family(kind, name)
    if not isinstance(network, family.network_class):
        raise ConfigError(
            f"{type(network).__module__}.{type(network).__name__} is not dlmjoint's own network of "
            f"the family {kind}: take dlmjoint.load_base({name!r}).network"
        )
    revision = getattr(network.config, "_commit_hash", None)
    tokenizer = _tokenizer(family, place, revision) if place else None
    return family(network, tokenizer, name=name, revision=revision)


@lru_cache(maxsize=1)
def _sampler(name: str, dtype: torch.dtype) -> JointSampler:
    """The sampler beside the network, in its dtype; kept, since `generate` is called again."""
    return JointSampler.from_pretrained(name, dtype=dtype)


@lru_cache(maxsize=1)
def _tokenizer(
    family: type[TransformerBase], name: str, revision: str | None
) -> PreTrainedTokenizerBase | None:
    return family.load_tokenizer(ModelFiles.find(name, revision, weights=False).folder)


def _rows(ids: Int[Tensor, "B P"], attends: Tensor | None) -> list[list[int]]:
    """The prompts without their padding."""
    if attends is None:
        return ids.tolist()
    real = attends.bool()
    if bool((real[:, :-1] & ~real[:, 1:]).any()):
        raise ConfigError("attention_mask has zeros behind ones: pad prompts on the left")
    return [row[mask].tolist() for row, mask in zip(ids, real, strict=True)]
