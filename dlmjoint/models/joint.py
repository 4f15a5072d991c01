"""The joint sampler: one trained block that updates the base's hidden states after every commit.

ADJUST (arXiv 2509.22738, section 4) is the same module; weights under its names load one to one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from dlmjoint.errors import LoadError, MismatchError
from dlmjoint.models.base import Base
from dlmjoint.models.files import differences, refuse_pickles
from dlmjoint.models.load import Loading, find_family, last_block, load_base
from dlmjoint.models.parts.attention import as_mask
from dlmjoint.models.parts.canvas_cache import CanvasMemory, Prefix
from dlmjoint.models.parts.captured import Captured
from dlmjoint.models.parts.cast import cast
from dlmjoint.models.parts.layout import Layout, Rotary, View
from dlmjoint.models.sampler_config import JointSamplerConfig
from dlmjoint.models.transformer import TransformerBase

ADJUST_NAMES = {
    "norm_embed.0.": "norm_embedding.",
    "norm_hidden.0.": "norm_hidden.",
    "down_project.0.": "project.",
    "layers.0.0.": "block.",
    "norm_postattn.0.": "gain.",
}
"""Prefixes in the authors' checkpoints (under `drafter.`) and the names here."""


class JointSampler(PreTrainedModel):
    """hidden' = hidden + gain * norm(block(project([norm(embedding), norm(hidden)]))).

    Row i of `hidden` is the prediction about token i, row i of the embedding is the token now
    there, a mask included. The same weights serve every depth. With the gain at zero the sampler
    changes nothing and decoding equals the product of marginals, token for token.
    """

    config_class = JointSamplerConfig
    config: JointSamplerConfig
    base_model_prefix = ""
    main_input_name = "embedding"

    def __init__(self, config: JointSamplerConfig) -> None:
        super().__init__(config)
        values = config.base_config
        if values is None:
            raise LoadError("the config names no base_config: not a joint sampler's config.json")
        family = find_family(values["model_type"])
        layer = family.read_config(values)
        layer._attn_implementation = "sdpa"
        self.layer_config = layer
        self.attention = family.attention_of(layer)
        width, eps = layer.hidden_size, layer.rms_norm_eps
        self.norm_embedding = nn.RMSNorm(width, eps=eps)
        self.norm_hidden = nn.RMSNorm(width, eps=eps)
        self.project = nn.Linear(2 * width, width)
        self.block = family.new_block(layer)
        self.gain = nn.RMSNorm(width, eps=eps)
        self.rotary = family.new_rotary(layer)
        self._layout: Layout | None = None
        self._captured: Captured[Tensor] | None = None
        self.captured = False
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Only what a checkpoint does not hold: the rotary table, a formula of the config."""
        if module is getattr(self, "rotary", None):
            values = self.config.base_config
            assert values is not None
            family = find_family(values["model_type"])
            fresh = family.new_rotary(family.read_config(values))
            for name, buffer in fresh.named_buffers():
                setattr(module, name, buffer)

    def _apply(self, fn: Any, recurse: bool = True) -> "JointSampler":
        """Moves and casts everything but the rotary table, which moves only: in bfloat16, where some
        training strategies put a module, its angles are off by whole turns far into a text."""
        tables = dict(self.rotary.named_buffers())
        super()._apply(fn, recurse)
        for name, table in tables.items():
            setattr(self.rotary, name, table.to(self.rotary.get_buffer(name).device))
        return self

    def forward(
        self,
        embedding: Float[Tensor, "B L D"],
        hidden: Float[Tensor, "B L D"],
        positions: Int[Tensor, "B L"],
        attends: Bool[Tensor, "B L"] | Bool[Tensor, "B L L"],
        renew: Bool[Tensor, "B L"] | None = None,
        padded: bool | None = None,
    ) -> Float[Tensor, "B L D"]:
        """The hidden states given the tokens now on the canvas (one pass, ADJUST Eq. 4); those not in
        `renew` stay as they are. `attends` says which columns there are, or which sees which; `padded`
        is `Canvas.padded`.

        Over a base that writes block after block, `renew` is the block that is being written: a
        finished block's states are the base's own, in every pass, so that what the sampler makes of
        them can be kept.
        """
        hidden = cast(hidden, self.project.weight.dtype)
        view = self._view(hidden, positions, attends, padded)
        run = self._pass if self._captured is None or not self.captured else self._captured
        renewed = run(embedding, hidden, view.mask, view.rotary)
        return renewed if renew is None else torch.where(renew[..., None], renewed, hidden)

    def _pass(self, embedding: Tensor, hidden: Tensor, mask: Any, rotary: Rotary) -> Tensor:
        """What is compiled."""
        hidden, inputs = self._inputs(embedding, hidden)
        update = self.block(inputs, attention_mask=mask, position_embeddings=rotary)
        return hidden + self.gain(cast(update, hidden.dtype))

    def capture(self) -> None:
        """Compile passes over whole canvases. Raises ConfigError where there is no compiler."""
        device = self.project.weight.device
        self._captured = self._captured or Captured(self._pass, "a sampler pass", device)
        self.captured = True

    def read(
        self,
        embedding: Float[Tensor, "B W D"],
        hidden: Float[Tensor, "B W D"],
        positions: Int[Tensor, "B W"],
        memory: CanvasMemory,
    ) -> None:
        """Keep the keys and values of the columns a memory has announced, for `within`."""
        _, inputs = self._inputs(embedding, hidden)
        rotary = self.rotary(inputs, positions)
        # What the block makes of them beside keys and values is of no use: nothing is hidden from it.
        self.block(
            inputs,
            attention_mask=None,
            position_embeddings=rotary,
            past_key_values=memory,
            use_cache=True,
        )

    def within(
        self,
        embedding: Float[Tensor, "B W D"],
        hidden: Float[Tensor, "B W D"],
        positions: Int[Tensor, "B W"],
        valid: Bool[Tensor, "B W"],
        prefix: Prefix,
    ) -> Float[Tensor, "B W D"]:
        """`forward` for the columns of the block that is being written, given what lies before it.
        Columns that are not `valid` are not of the block and stay as they are."""
        hidden, inputs = self._inputs(embedding, hidden)
        seen = torch.cat([prefix.seen, valid], dim=-1)[:, None].expand(-1, inputs.shape[1], -1)
        update = self.block(
            inputs,
            attention_mask=as_mask(self.layer_config, inputs, seen),
            position_embeddings=self.rotary(inputs, positions),
            past_key_values=prefix,
            use_cache=True,
        )
        return torch.where(valid[..., None], hidden + self.gain(update.to(hidden.dtype)), hidden)

    def _view(
        self, hidden: Tensor, positions: Tensor, attends: Tensor, padded: bool | None
    ) -> View:
        if attends.ndim == 3:
            return View(as_mask(self.layer_config, hidden, attends), self.rotary(hidden, positions))
        self._layout = layout = Layout.of(
            self.layer_config,
            self.attention,
            self.rotary,
            hidden,
            positions,
            attends,
            padded,
            self._layout,
        )
        return layout.all

    def _inputs(self, embedding: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden states in the layer's dtype, and what its block is given."""
        # One type from end to end: the base may be in a smaller one, and so are products in mixed
        # precision, where a norm of weights in another type than its input's has no fused kernel.
        dtype = self.project.weight.dtype
        embedding, hidden = cast(embedding, dtype), cast(hidden, dtype)
        inputs = torch.cat([self.norm_embedding(embedding), self.norm_hidden(hidden)], dim=-1)
        return hidden, cast(self.project(inputs), dtype)

    @classmethod
    def over(
        cls,
        config: PreTrainedConfig,
        *,
        name: str,
        revision: str | None,
        fingerprint: str,
    ) -> "JointSampler":
        """A sampler with random weights over a base that need not be in memory."""
        values = json.loads(config.to_json_string(use_diff=False))
        for key in ("_name_or_path", "quantization_config"):  # of one loading, not of the base
            values.pop(key, None)
        return cls(
            JointSamplerConfig(
                base_name=name,
                base_revision=revision,
                base_fingerprint=fingerprint,
                base_config=values,
            )
        )

    @classmethod
    def _over(cls, base: TransformerBase) -> "JointSampler":
        sampler = cls.over(
            base.config, name=base.name, revision=base.revision, fingerprint=base.fingerprint
        )
        nn.Module.to(sampler, base.device)
        return sampler

    @classmethod
    def fresh(cls, base: TransformerBase) -> "JointSampler":
        """A sampler with PyTorch's own random weights, as ADJUST starts one."""
        return cls._over(base).requires_grad_(True)

    @classmethod
    def from_base(
        cls, base: TransformerBase, mix: float = 0.7, gain: float = 0.1
    ) -> "JointSampler":
        """An untrained sampler that starts as a small step of the base's own last block.

        `mix` weighs embedding and hidden state alike in the projection, `gain` is the output's
        scale. How it compares with a random start: docs/numbers/ablation.md. Raises LoadError if
        the files of a quantised base are gone: its block is read from them in full precision.
        """
        sampler = cls._over(base)
        sampler.block.load_state_dict(last_block(base, list(sampler.block.state_dict())))
        with torch.no_grad():
            identity = torch.eye(base.hidden_size)
            sampler.project.weight.copy_(mix * torch.cat([identity, identity], dim=1))
            sampler.project.bias.zero_()
            sampler.gain.weight.fill_(gain)
        return sampler.requires_grad_(True)

    @classmethod
    def from_adjust(cls, base: TransformerBase, state: Mapping[str, Tensor]) -> "JointSampler":
        """A sampler with the weights of an ADJUST checkpoint; see `load_adjust`."""
        return cls._over(base).load_adjust(state)

    def load_adjust(self, state: Mapping[str, Tensor]) -> "JointSampler":
        """The sampler itself, with the weights of an ADJUST checkpoint (`drafter.*` names).

        Raises MismatchError if names or shapes are not those of one shared layer over this base.
        """
        renamed = {}
        for name, tensor in state.items():
            inner = name.removeprefix("drafter.")
            theirs = next((prefix for prefix in ADJUST_NAMES if inner.startswith(prefix)), None)
            if theirs is None:
                raise MismatchError(
                    f"{name} is no weight of a one-layer ADJUST sampler; several layers, a copy "
                    "per depth (one_noshare) and other features are not built in"
                )
            renamed[ADJUST_NAMES[theirs] + inner.removeprefix(theirs)] = tensor
        return self.take(renamed)

    def take(self, state: Mapping[str, Tensor]) -> "JointSampler":
        """The sampler itself, with these weights. Raises MismatchError if names or shapes differ."""
        told = differences(_shapes(self.state_dict()), _shapes(state))
        if told:
            raise MismatchError(
                f"the weights do not fit a sampler over {self.config.base_name}. {told}"
            )
        self.load_state_dict(state)
        return self

    @classmethod
    def from_pretrained(cls, name: str | Path, *args: Any, **kwargs: Any) -> "JointSampler":  # pyright: ignore[reportIncompatibleMethodOverride]
        """The sampler in a folder or hub repository.

        Only safetensors files are read: a pickle (`.bin`) may hold code. Raises LoadError if it is
        missing, incomplete, corrupt, or no joint sampler.
        """
        refuse_pickles(Path(name))
        try:
            sampler, report = super().from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
                str(name), *args, output_loading_info=True, use_safetensors=True, **kwargs
            )
        except (OSError, SafetensorError, ValueError, KeyError, HFValidationError) as error:
            if isinstance(error, LoadError):
                raise
            raise LoadError(f"{name}: the sampler does not load: {error}") from error
        wrong = {kind: sorted(map(str, keys)) for kind, keys in report.items() if keys}
        if wrong:
            raise LoadError(f"{name}: the weights do not fit the config: {wrong}")
        return sampler.eval()

    def load_base(
        self,
        device: str = "cpu",
        dtype: str = "float32",
        *,
        name: str | Path | None = None,
        loading: Loading | None = None,
    ) -> TransformerBase:
        """The frozen base the sampler belongs to, at the commit its config names.

        `name` is another place that holds the same base, such as a copy in a folder; the other
        settings are those of `dlmjoint.load_base`. Raises LoadError if the base is not there,
        MismatchError if what is there is another base.
        """
        place = self.config.base_name if name is None else str(name)
        if place is None:
            raise LoadError("the sampler's config names no base: give one, load_base(name=...)")
        revision = None if Path(place).is_dir() else self.config.base_revision
        try:
            base = load_base(place, device, dtype, revision, loading)
        except LoadError as error:
            raise LoadError(
                f"the sampler's base does not load: {error}. If it lies elsewhere, give that folder "
                "or hub id: load_base(name=...)"
            ) from error
        self.check(base)
        return base

    def check(self, base: Base) -> None:
        """Raise MismatchError unless the sampler was trained for this very base: the same weights
        and, where both come from a hub, the same commit."""
        wanted, found = self.config.base_revision, base.revision
        if self.config.base_fingerprint != base.fingerprint:
            raise MismatchError(
                f"the sampler belongs to {self.config.base_name} "
                f"(revision {wanted}, weights {self.config.base_fingerprint}), "
                f"not to {base.name} (revision {found}, weights {base.fingerprint}); "
                "load that base, as sampler.load_base() does, or train a sampler for this one"
            )
        if None not in (wanted, found) and wanted != found:
            raise MismatchError(
                f"the sampler was trained over revision {wanted} of {self.config.base_name}, this is "
                f"revision {found} of {base.name}: load the base with revision={wanted}, as "
                "sampler.load_base() does"
            )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
