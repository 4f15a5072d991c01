"""What lm-eval's `--model_args` may hold for the model `dlmjoint`."""

import json
from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jsonargparse import ArgumentParser

from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Trained
from dlmjoint.disk.paths import expanded
from dlmjoint.errors import ConfigError
from dlmjoint.models.load import Loading


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the model, by the names they have in `--model_args`."""

    base: str
    """Folder or hub id of the frozen base."""
    sampler: str | None = None
    """Folder or hub id of a joint sampler: the policy's `refine`."""
    policy: Policy | None = None
    """How to decode: a YAML file, JSON, or `policy.commits_per_forward=4` and so on. The default
    draws token by token. Its temperature and top_p are replaced by the task's."""
    seed: int = 0
    """Of the noise, and of the masks of log-likelihoods."""
    samples: int = 128
    """Masks per log-likelihood."""
    greedy: bool = True
    """Find out of every scored continuation whether the greedy decoder writes it, as tasks of
    accuracy by `loglikelihood` (LAMBADA) count; multiple choice does not need it."""
    opening: str = ""
    """Written before every prompt, such as the beginning-of-text token; not in a chat."""
    max_gen_toks: int = 256
    """Columns of a response where the task says nothing."""
    batch_size: int = 1
    """Rows decoded together; changes nothing but the speed. lm-eval's `--batch_size` sets it."""
    device: str = "cpu"
    """Of the base. lm-eval's `--device` sets it."""
    dtype: str = "float32"
    """Of the base; CPUs want float32."""
    revision: str | None = None
    """Pins a hub commit of the base."""
    loading: Loading | None = None
    """How the base comes into memory: device_map, bits, attention."""

    def __post_init__(self) -> None:
        for name in ("samples", "max_gen_toks", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more")
        self.decoder()  # a policy that cannot work is refused before anything is loaded

    def decoder(self) -> Policy:
        """The policy with its sampler. Raises ConfigError for a sampler that has nothing to do."""
        policy = self.policy or Policy()
        if self.sampler is None:
            return policy
        if policy.refine != Policy().refine:
            raise ConfigError("sampler and policy.refine both name a refinement: leave one out")
        if policy.commits_per_forward == 1 and policy.early == Policy().early:
            raise ConfigError(
                "a sampler has nothing to do at one token per forward: say "
                "policy.commits_per_forward=4"
            )
        return replace(policy, refine=Trained(self.sampler))


def read(model_args: Mapping[str, Any]) -> Settings:
    """The settings, read as a command line would be. Raises ConfigError, in one line, if they are
    not the model's."""
    if str(model_args.get("batch_size", "")).startswith("auto"):
        raise ConfigError("batch_size is auto: give a number, --batch_size 16")
    parser = ArgumentParser(prog="--model_args", exit_on_error=False)
    parser.add_class_arguments(Settings, sub_configs=True)
    flags = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in model_args.items()
        if value is not None
    ]
    try:
        given = parser.instantiate(expanded(parser.parse_args(flags)))
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(f"--model_args: {error}") from error
    return Settings(**given)
