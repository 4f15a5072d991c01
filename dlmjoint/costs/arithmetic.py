"""What a base and a joint sampler over it cost, by arithmetic from the base's config alone.

Nothing is loaded and nothing is timed. Parameters are counted exactly; FLOPs count the matrix
products (two per multiply-add) and not norms, softmax or the drawing of tokens.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedConfig

from dlmjoint.errors import ConfigError
from dlmjoint.models.files import torch_dtype
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase

H100 = 989e12
"""FLOP/s of dense bfloat16 products on an H100 SXM, by NVIDIA's data sheet."""


@dataclass(frozen=True)
class Size:
    """What a base's costs follow from."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    """Width inside the feed-forward blocks."""
    vocabulary: int
    """Rows of the head, ids no tokenizer knows included."""
    parameters: int
    """Of the base; a head tied to the embedding counts once."""
    block_matrices: int
    """Weights of one block that are multiplied with every column: no norms, no biases."""
    layer_parameters: int
    """Of the joint layer over this base."""
    layer_matrices: int
    """Of these, weights multiplied with every column."""
    block_length: int | None = None
    """Columns of a block, where the base writes block after block: it is then reckoned with its exact
    cache, which computes a block's columns in every forward, and every block's once more."""

    @property
    def head(self) -> int:
        """Weights of the head."""
        return self.vocabulary * self.width


@dataclass(frozen=True)
class Setting:
    """What is to be done with a base; the defaults are ADJUST's for Dream-7B-Base."""

    prompt_length: int = 1
    """Columns of the prompt."""
    max_new_tokens: int = 127
    """Columns of the response."""
    batch_size: int = 32
    """Rows decoded together on one device."""
    fit_batch_size: int = 32
    """Windows per training step, over all devices."""
    window: int = 4
    """States per window."""
    depth: int = 3
    """Sampler passes of the longest unroll."""
    devices: int = 4
    """GPUs that share a training step."""
    examples: int = 100_000
    """Trajectories to generate."""
    steps: int = 20_000
    """Training steps."""
    samples: int = 1_000
    """Samples to evaluate, per decoder."""
    dtype: str = "bfloat16"
    """Of the base's weights."""
    bits: Literal[4, 8] | None = None
    """Per weight, where the base's blocks are quantised."""
    flops_per_second: float = H100
    """Of one GPU, by its data sheet."""
    utilisation: float = 0.4
    """The share of it that is reached: an assumption, no measurement."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, int | float) and value <= 0:
                raise ConfigError(f"{name} is {value}, expected more than 0")
        if self.utilisation > 1:
            raise ConfigError(f"utilisation is {self.utilisation}, expected at most 1")
        if self.fit_batch_size % self.devices:
            raise ConfigError(
                f"fit_batch_size is {self.fit_batch_size}, expected a multiple of the "
                f"{self.devices} devices"
            )
        if self.depth >= self.window:
            raise ConfigError(
                f"window is {self.window}: a depth of {self.depth} needs {self.depth + 1} states"
            )

    @property
    def length(self) -> int:
        """Columns of the canvas."""
        return self.prompt_length + self.max_new_tokens

    @property
    def windows(self) -> int:
        """Per device and training step."""
        return self.fit_batch_size // self.devices

    @property
    def element(self) -> int:
        """Bytes of a base weight. Raises ConfigError for a dtype no base is loaded as."""
        return torch_dtype(self.dtype).itemsize


def measure(family: type[TransformerBase], config: PreTrainedConfig) -> Size:
    """The size of a base and of a joint layer over it, counted on modules without memory."""
    network = family.skeleton(config)
    with torch.device("meta"):
        layer = JointSampler.over(config, name="", revision=None, fingerprint="")
    heads, width = config.num_attention_heads, config.hidden_size
    return Size(
        layers=config.num_hidden_layers,
        width=width,
        heads=heads,
        kv_heads=config.num_key_value_heads,
        head_width=getattr(config, "head_dim", None) or width // heads,
        inner=config.intermediate_size,
        vocabulary=config.vocab_size,
        parameters=_count(network),
        block_matrices=_count(network.model.layers[0], matrices=True),
        layer_parameters=_count(layer),
        layer_matrices=_count(layer, matrices=True),
        block_length=family.attention_of(config).block_length,
    )


def _count(module: nn.Module, matrices: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim == 2 or not matrices)


def attention_flops(size: Size, columns: int, length: int) -> int:
    """FLOPs of one layer's attention proper: every column's queries with `length` keys, and the
    weights with as many values: 4 · heads · head width · length · columns."""
    return 4 * size.heads * size.head_width * length * columns


def forward_flops(size: Size, columns: int, length: int, cells: float) -> float:
    """FLOPs of a base forward over `columns` = rows · `length`, and of the logits of `cells`:
    2 · weights · columns, attention in every layer, 2 · V · D · cells."""
    block = 2 * size.block_matrices * columns + attention_flops(size, columns, length)
    return size.layers * block + 2 * size.head * cells


def pass_flops(size: Size, columns: int, length: int, cells: float) -> float:
    """FLOPs of one sampler pass over `columns`, and of the base's head on `cells` (the columns
    still masked)."""
    layer = 2 * size.layer_matrices * columns + attention_flops(size, columns, length)
    return layer + 2 * size.head * cells


def decode_flops(size: Size, length: int, response: int, commits: int, joint: bool) -> float:
    """FLOPs of decoding one example: `response` tokens, `commits` per forward, on a canvas of
    `length` columns.

    With n masks left, a forward ranks n cells and every commit computes its own cell's logits once
    more to draw from; a joint sampler's pass ranks the masks left after the commits before it.
    """
    if size.block_length is None:
        return _writing_flops(size, length, length, response, commits, joint)
    finished, total = length - response, 0.0
    for start in range(length - response, length, size.block_length):
        width = min(size.block_length, length - start)
        end = start + width
        # A block's first forward computes what was finished before it, as later blocks see it.
        total += forward_flops(size, finished, end, 0)
        if joint and commits > 1 and finished:  # and the sampler reads all that it computes
            total += pass_flops(size, finished + width, end, 0)
        total += _writing_flops(size, width, end, width, commits, joint)
        finished = width
    return total


def _writing_flops(
    size: Size, columns: int, length: int, masked: int, commits: int, joint: bool
) -> float:
    """FLOPs of writing `masked` tokens by forwards over `columns`, which see `length`."""
    total = 0.0
    for left in range(masked, 0, -commits):
        quota = min(commits, left)
        total += forward_flops(size, columns, length, left + (1 if joint else quota))
        if joint:
            for done in range(1, quota):
                total += pass_flops(size, columns, length, left - done + 1)
    return total


def forwards(size: Size, response: int, commits: int) -> int:
    """Base forwards of writing a response: one that finishes a block does not begin the next."""
    block = size.block_length or response
    widths = [min(block, response - start) for start in range(0, response, block)]
    return sum(-(-width // commits) for width in widths)


def fit_flops(
    size: Size, length: int, masked: float, windows: int, window: int, depth: int
) -> float:
    """FLOPs of one training step on `windows` windows of `window` states with `masked` masked
    columns each.

    The base runs once per state, its head on all but the windows' first. Pass j runs from window - j states per window, and costs three
    times its forward with the backward (gradients of inputs and of weights); the head, which is
    frozen, twice.
    """
    states = windows * window
    prefix, width = trained_columns(size, length)
    columns = windows * prefix + states * width
    total = forward_flops(size, columns, prefix + width, (states - windows) * masked)
    for rows in starts_of(windows, window, depth):
        layer = pass_flops(size, windows * prefix + rows * width, prefix + width, 0)
        total += 3 * layer + 2 * (2 * size.head * rows * masked)
    return total


def trained_columns(size: Size, length: int) -> tuple[int, int]:
    """The columns that a window's states share, and each state's own: a block in the middle of the
    canvas behind its prefix; of a base that sees everything, the whole canvas."""
    if size.block_length is None:
        return 0, length
    width = min(size.block_length, length)
    return (length - width) // 2, width


def starts_of(windows: int, window: int, depth: int) -> list[int]:
    """Rows of the sampler's passes 1 .. depth: pass j starts from all but the last j states."""
    return [windows * (window - passes) for passes in range(1, depth + 1)]


def hours(flops: float, flops_per_second: float = H100, utilisation: float = 0.4) -> float:
    """GPU hours that `flops` take on one GPU of `flops_per_second` of which `utilisation` is
    reached: flops / (utilisation · flops_per_second) / 3600."""
    return flops / (utilisation * flops_per_second) / 3600


def work(size: Size, setting: Setting) -> dict[str, float]:
    """FLOPs of one base forward and one sampler pass over a device's rows with half of the response
    masked, of one trajectory, of one training step, and of all trajectories and all steps."""
    rows, length, response = setting.batch_size, setting.length, setting.max_new_tokens
    width = size.block_length or length
    masked = min(response, width) / 2
    once = (rows * width, length, rows * masked)
    trajectory = decode_flops(size, length, response, 1, joint=False)
    unrolls = (setting.fit_batch_size, setting.window, setting.depth)
    step = fit_flops(size, length, masked, *unrolls)
    return {
        "base_forward": forward_flops(size, *once),
        "sampler_pass": pass_flops(size, *once),
        "trajectory": trajectory,
        "fit_step": step,
        "generate": trajectory * setting.examples,
        "fit": step * setting.steps,
    }
