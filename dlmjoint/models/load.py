"""From a name to a base: which family, which folder, which commit; nothing half-loaded gets out."""

import importlib
import importlib.util
import inspect
import logging
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import dlmjoint.models
from dlmjoint.errors import ConfigError, LoadError
from dlmjoint.models.base import Base
from dlmjoint.models.files import ModelFiles, torch_dtype
from dlmjoint.models.parts.attention import KERNELS
from dlmjoint.models.parts.heap import keep_freed
from dlmjoint.models.transformer import EMBEDDING, FINGERPRINT, HEAD, TransformerBase

log = logging.getLogger(__name__)

CLASS_PATH = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)+)(?::(.*))?")
"""A base of another package: `package.module.Class:WHERE`."""


@dataclass(frozen=True)
class Loading:
    """How a base comes into memory, where one device and full precision are not the answer."""

    device_map: str | dict[str, int | str] | None = None
    """`auto` spreads the layers over all GPUs; or module name to device, as in accelerate."""
    bits: Literal[4, 8] | None = None
    """Quantise the frozen base's blocks with bitsandbytes (8: LLM.int8, 4: NF4); embedding, head
    and a joint sampler never are. With 8, a batch shares the columns kept in half precision, so
    that a row's logits depend on the other rows by about the error of quantisation."""
    attention: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] = "sdpa"
    """The attention kernel, by transformers' name."""
    compile: bool = False
    """Compile whole-canvas forwards, and a sampler's passes, for every shape they meet (CUDA graphs on a
    GPU); takes a minute or so per shape, is announced, and counts in no speed. For decoding."""

    def __post_init__(self) -> None:
        if isinstance(self.device_map, dict) and "disk" in self.device_map.values():
            raise ConfigError(
                "device_map puts modules on disk, where every forward would read them again: "
                "quantise the base with bits, or give it more devices"
            )
        if self.compile and self.placed:
            raise ConfigError(
                "compile needs a base in its own precision on one device: leave out device_map and bits"
            )
        if self.bits is not None and importlib.util.find_spec("bitsandbytes") is None:
            raise ConfigError(
                f"bits={self.bits} needs the bitsandbytes package: pip install bitsandbytes"
            )

    @property
    def placed(self) -> bool:
        """Whether the base must stay where loading has put it."""
        return self.device_map is not None or self.bits is not None

    def arguments(self, device: str, dtype: torch.dtype) -> dict[str, Any]:
        """What transformers' `from_pretrained` calls these settings."""
        quantized: dict[str, Any] = {}
        if self.bits is not None:
            # It warns in every product that inputs are cast to float16.
            logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
            quantized["quantization_config"] = BitsAndBytesConfig(
                load_in_8bit=self.bits == 8,
                load_in_4bit=self.bits == 4,
                bnb_4bit_compute_dtype=dtype,
                bnb_4bit_quant_type="nf4",
                llm_int8_skip_modules=["lm_head"],
            )
        return {
            "dtype": dtype,
            # Weights go to their device as they are read, in their dtype, a few at a time.
            "device_map": {"": device} if self.device_map is None else self.device_map,
            "attn_implementation": self.attention,
            **quantized,
        }


def find_family(model_type: str, name: str = "the config") -> type[TransformerBase]:
    """The family that reads configs of this `model_type`: any `TransformerBase` in `dlmjoint.models`.

    A new family is a new file there; nothing lists them. Raises ConfigError for an unknown one,
    with the `name` of what asked for it.
    """
    found = {}
    for module in pkgutil.iter_modules(dlmjoint.models.__path__):
        members = vars(importlib.import_module(f"dlmjoint.models.{module.name}")).values()
        for member in members:
            if inspect.isclass(member) and issubclass(member, TransformerBase):
                found[getattr(member, "model_type", None)] = member
    found.pop(None, None)  # the shared class itself is no family
    if model_type not in found:
        raise ConfigError(
            f"{name}: model_type {model_type!r} is no known family of bases; "
            f"known: {', '.join(sorted(map(str, found)))}. Load a model of one of these"
        )
    return found[model_type]


def outside(name: str) -> tuple[type[Base], str] | None:
    """The class of a base that is named `package.module.Class:WHERE`, and what stands behind the
    colon; None for a folder or hub id. Raises ConfigError if that is no class of a base."""
    named = CLASS_PATH.fullmatch(name)
    if named is None or Path(name).exists():
        return None
    module, _, kind = named[1].rpartition(".")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{name}: there is no such folder, and no such class of an installed package: {error}"
        ) from error
    if not (inspect.isclass(found) and issubclass(found, Base)):
        raise ConfigError(f"{name}: {named[1]} is no subclass of dlmjoint.models.base.Base")
    return found, named[2] or ""


def load_any_base(
    name: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    loading: Loading | None = None,
) -> Base:
    """The base of that name, be it a transformer or not, of this package or of another.

    `package.module.Class:WHERE` names a class of yours. A `TransformerBase` is a family, whose weights
    lie in WHERE, a folder or hub id; any other is what its classmethod `load(where, *, device, dtype,
    revision, loading)` makes. Everything else is as in `load_base`.
    """
    named = outside(str(name))
    if named is None:
        return _load(ModelFiles.find(str(name), revision), None, device, dtype, loading)
    kind, where = named
    made: Base
    if issubclass(kind, TransformerBase):
        made = _load(ModelFiles.find(where, revision), kind, device, dtype, loading)
    else:
        made = _maker(kind)(where, device=device, dtype=dtype, revision=revision, loading=loading)
    made.name = str(name)  # by which runs and samplers find it again
    return made


def _maker(kind: type[Base]) -> Callable[..., Base]:
    made = getattr(kind, "load", None)
    if made is None:
        raise ConfigError(
            "a base that is no TransformerBase is made by its classmethod load(where, *, device, dtype, "
            f"revision, loading), and {kind.__module__}.{kind.__qualname__} has none"
        )
    return made


def load_base(
    name: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    loading: Loading | None = None,
) -> TransformerBase:
    """The frozen base in a local folder or a hub repository.

    `dtype` is a torch name; CPUs without bfloat16 instructions want float32. `revision` pins a hub
    commit. Beside the weights themselves, host memory holds no more than the few on their way to
    their device. Raises LoadError if files are missing, damaged or not what the config says,
    ConfigError for an unknown family or setting.
    """
    base = load_any_base(name, device, dtype, revision, loading)
    if not isinstance(base, TransformerBase):
        raise ConfigError(
            f"{name} is no transformer, which trajectories, training and samplers need; eval, score, "
            "sample, calibrate and lm-eval take it"
        )
    return base


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the base of that name, without its weights where it is a transformer; None if
    it has none. Raises as `load_any_base` does."""
    kind, where = outside(name) or (None, name)
    if kind is not None and not issubclass(kind, TransformerBase):
        return load_any_base(name).tokenizer
    files = ModelFiles.find(where, revision, weights=False)
    family = kind or find_family(str(files.config.get("model_type")), files.name)
    return family.load_tokenizer(files.folder)


def _load(
    files: ModelFiles,
    family: type[TransformerBase] | None,
    device: str,
    dtype: str,
    loading: Loading | None,
) -> TransformerBase:
    """A transformer; None takes the family that its config names."""
    keep_freed()
    wanted, loading = torch_dtype(dtype), loading or Loading()
    family = family or find_family(str(files.config.get("model_type")), files.name)
    config = family.read_config(files.config)
    if family.attention_of(config).block_length is not None and loading.attention not in KERNELS:
        raise ConfigError(
            f"attention={loading.attention}: {files.name} writes block after block, a pattern of which "
            f"{' and '.join(KERNELS)} are built in"
        )
    files.check(family.shapes(config))
    tokenizer = family.load_tokenizer(files.folder)
    if tokenizer is None:
        log.warning("%s has no tokenizer files: prompts must be ids, answers stay ids", files.name)
    network = _network(files, family, config, loading.arguments(device, wanted))
    base = family(network, tokenizer, name=files.name, revision=files.revision)
    base.bits, base.stop_ids = loading.bits, files.stop_ids
    check(base, wanted)
    if loading.compile:
        base.capture()
    return base


def read_config(files: ModelFiles) -> tuple[type[TransformerBase], PreTrainedConfig]:
    """The family of a folder and its config object. Raises as `load_base` does."""
    family = find_family(str(files.config.get("model_type")), files.name)
    return family, family.read_config(files.config)


def fingerprint_names(family: type[TransformerBase], config: PreTrainedConfig) -> list[str]:
    """The published names of the weights a fingerprint is taken of; a tied head is the embedding."""
    tied = {HEAD: EMBEDDING} if config.tie_word_embeddings else {}
    return [family.published(tied.get(name, name)) for name in FINGERPRINT]


def _network(
    files: ModelFiles,
    family: type[TransformerBase],
    config: PreTrainedConfig,
    arguments: dict[str, Any],
) -> PreTrainedModel:
    try:
        with files.opened() as weights:
            network = family.network_class.from_pretrained(
                None, config=config, state_dict=weights, **arguments
            )
    except ImportError as error:  # an attention kernel or a quantiser that is not installed
        raise ConfigError(f"{files.name} cannot be loaded like this: {error}") from error
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise LoadError(f"{files.name}: the weights do not load: {error}") from error
    network.config.name_or_path = files.name
    network.config._commit_hash = files.revision
    return network


def check(base: TransformerBase, dtype: torch.dtype) -> None:
    """Refuse a base that would compute nonsense without saying so.

    What can be compared without knowing the weights: the rotary table against its formula (a buffer
    that no file holds; transformers once left it uninitialised), the weights' places, types and
    numbers, a tied or untied head, special ids against vocabulary and tokenizer. Raises LoadError.
    """
    _check_rotary(base)
    _check_weights(base, dtype)
    _check_ids(base)


def _check_rotary(base: TransformerBase) -> None:
    table = base.network.model.rotary_emb.inv_freq.float().cpu()
    formula = base.new_rotary(base.config).get_buffer("inv_freq")
    if not torch.equal(table, formula):
        raise LoadError(
            f"{base.name}: the rotary table differs from its formula by up to "
            f"{float((table - formula).abs().max()):.2g}: loading left it uninitialised. Try the "
            "transformers version in constraints.txt"
        )


def _check_weights(base: TransformerBase, dtype: torch.dtype) -> None:
    network = base.network
    tied = network.lm_head.weight is network.model.embed_tokens.weight
    if tied != bool(base.config.tie_word_embeddings):
        raise LoadError(
            f"{base.name}: the head is {'' if tied else 'not '}tied, against its config: fetch "
            "config.json and weights again, from one place"
        )
    for name, weight in network.named_parameters():
        if weight.is_meta:
            raise LoadError(
                f"{base.name}: there was no room for {name} on the devices of device_map: quantise "
                "the base with bits, or give it more devices"
            )
        if name in FINGERPRINT and weight.dtype != dtype:
            raise LoadError(
                f"{base.name}: {name} was loaded as {weight.dtype}, not as {dtype}. Try the "
                "transformers version in constraints.txt"
            )
        # The extremes are found without a copy of the weight, and are NaN if anything is.
        if weight.is_floating_point() and not all(map(torch.isfinite, weight.detach().aminmax())):
            raise LoadError(
                f"{base.name}: {name} holds numbers that are not finite in {dtype}: ask for "
                "float32 or bfloat16, or fetch the weights again"
            )


def _check_ids(base: TransformerBase) -> None:
    for kind, token_id in (("mask", base.mask_id), ("eos", base.eos_id), ("pad", base.pad_id)):
        if token_id is None or not 0 <= token_id < base.vocab_size:
            raise LoadError(
                f"{base.name}: config.json gives {kind}_token_id={token_id}, expected an id below "
                f"{base.vocab_size}; mend the config"
            )
    known = None if base.tokenizer is None else base.tokenizer.mask_token_id
    if known is not None and known != base.mask_id:
        raise LoadError(
            f"{base.name}: the config's mask is id {base.mask_id}, the tokenizer's {known}: their "
            "files do not belong together; fetch them again, from one place"
        )


def last_block(base: TransformerBase, names: Sequence[str]) -> Mapping[str, Tensor]:
    """The weights of the base's last block; those of a quantised base are read from its files."""
    blocks = base.network.model.layers
    if base.bits is None:
        return blocks[-1].state_dict()
    named = outside(base.name)
    files = ModelFiles.find(named[1] if named else base.name, base.revision)
    published = [base.published(f"model.layers.{len(blocks) - 1}.{name}") for name in names]
    return dict(zip(names, files.read(published), strict=True))
