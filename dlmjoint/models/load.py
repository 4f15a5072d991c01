"""From a name to a base: which family, which folder, which commit; nothing half-loaded gets out."""

import importlib
import importlib.util
import inspect
import logging
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import BitsAndBytesConfig

import dlmjoint.models
from dlmjoint.errors import ConfigError, LoadError
from dlmjoint.models.files import ModelFiles, torch_dtype
from dlmjoint.models.transformer import FINGERPRINT, FINGERPRINT_ROWS, TransformerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loading:
    """How a base comes into memory, where one device and full precision are not the answer."""

    device_map: str | dict[str, int | str] | None = None
    """`auto` spreads the layers over all GPUs; or module name to device, as in accelerate."""
    bits: Literal[4, 8] | None = None
    """Quantise the frozen base with bitsandbytes; a joint sampler never is."""
    attention: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] = "sdpa"
    """The attention kernel, by transformers' name."""

    def __post_init__(self) -> None:
        if self.bits is not None and importlib.util.find_spec("bitsandbytes") is None:
            raise ConfigError(
                f"bits={self.bits} needs the bitsandbytes package: pip install bitsandbytes"
            )

    def arguments(self, device: str, dtype: torch.dtype) -> dict[str, Any]:
        """What transformers' `from_pretrained` calls these settings."""
        quantized: dict[str, Any] = {}
        if self.bits is not None:
            quantized["quantization_config"] = BitsAndBytesConfig(
                load_in_8bit=self.bits == 8,
                load_in_4bit=self.bits == 4,
                bnb_4bit_compute_dtype=dtype,
                llm_int8_skip_modules=["lm_head"],
            )
        return {
            "dtype": dtype,
            # Weights go straight to their device, in their dtype, one by one.
            "device_map": {"": device} if self.device_map is None else self.device_map,
            "attn_implementation": self.attention,
            **quantized,
        }


def find_family(model_type: str) -> type[TransformerBase]:
    """The family that reads configs of this `model_type`: any `TransformerBase` in `dlmjoint.models`.

    A new family is a new file there; nothing lists them. Raises ConfigError for an unknown one.
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
            f"model_type {model_type!r} is no known family of bases; known: {sorted(map(str, found))}"
        )
    return found[model_type]


def load_base(
    name: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    loading: Loading | None = None,
) -> TransformerBase:
    """The frozen base in a local folder or a hub repository.

    `dtype` is a torch name; CPUs without bfloat16 instructions want float32. `revision` pins a hub
    commit. The weights are streamed shard by shard to their device. Raises LoadError if files are
    missing, damaged or not what the config says, ConfigError for an unknown family or setting.
    """
    wanted = torch_dtype(dtype)
    files = ModelFiles.find(str(name), revision)
    family = find_family(str(files.config.get("model_type")))
    config = family.read_config(files.config)
    files.check(family.shapes(config))
    tokenizer = family.load_tokenizer(files.folder)
    if tokenizer is None:
        log.warning("%s has no tokenizer files: prompts must be ids, answers stay ids", name)
    arguments = (loading or Loading()).arguments(device, wanted)
    try:
        network = family.network_class.from_pretrained(files.folder, config=config, **arguments)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise LoadError(f"{name}: the weights do not load: {error}") from error
    base = family(network, tokenizer, name=files.name, revision=files.revision)
    check(base, wanted)
    return base


def check(base: TransformerBase, dtype: torch.dtype) -> None:
    """Refuse a base that would compute nonsense without saying so.

    What can be compared without knowing the weights: the rotary table against its formula (a buffer
    that no file holds; transformers once left it uninitialised), the weights' types, a tied or
    untied head, special ids against vocabulary and tokenizer. Raises LoadError.
    """
    network, config = base.network, base.config
    table = network.model.rotary_emb.inv_freq.float().cpu()
    formula = base.new_rotary(config).get_buffer("inv_freq")
    if not torch.equal(table, formula):
        raise LoadError(
            f"{base.name}: the rotary table differs from its formula by up to "
            f"{float((table - formula).abs().max()):.2g}: loading left it uninitialised. Try the "
            "transformers version in constraints.txt"
        )
    tied = network.lm_head.weight is network.model.embed_tokens.weight
    if tied != bool(config.tie_word_embeddings):
        raise LoadError(
            f"{base.name}: the head is {'' if tied else 'not '}tied, against its config"
        )
    for name in FINGERPRINT:
        weight = network.get_parameter(name)
        if weight.dtype != dtype:
            raise LoadError(f"{base.name}: {name} was loaded as {weight.dtype}, not as {dtype}")
        if not bool(weight[:FINGERPRINT_ROWS].isfinite().all()):
            raise LoadError(
                f"{base.name}: {name} holds numbers that are not finite in {dtype}: ask for "
                "float32 or bfloat16, or fetch the weights again"
            )
    for kind, token_id in (("mask", base.mask_id), ("eos", base.eos_id), ("pad", base.pad_id)):
        if token_id is None or not 0 <= token_id < base.vocab_size:
            raise LoadError(
                f"{base.name}: config.json gives {kind}_token_id={token_id}, expected an id below "
                f"{base.vocab_size}"
            )
    known = None if base.tokenizer is None else base.tokenizer.mask_token_id
    if known is not None and known != base.mask_id:
        raise LoadError(
            f"{base.name}: the config's mask is id {base.mask_id}, the tokenizer's {known}: their "
            "files do not belong together"
        )
