"""Memory in bytes, by arithmetic: the tensors that are alive together, and not the allocator's waste or
a GPU's own context (about 1 GB)."""

from dlmjoint.costs.arithmetic import Setting, Size, starts_of, trained_columns
from dlmjoint.distill.chunked import GPU_LOGITS
from dlmjoint.trajectories import batching

LAYER_BYTES = 4
"""Of a joint layer's weights while it is trained; decoding runs it in the base's dtype."""
ADAM_STATES = 2
"""Numbers AdamW keeps per parameter: the means of the gradient and of its square."""


def block_bytes(size: Size, element: int, bits: int | None = None) -> float:
    """The matrices of the base's blocks: `element` bytes per weight, or `bits`; NF4 has one float32
    scale for 64 weights beside them."""
    weights = size.layers * size.block_matrices
    if bits is None:
        return weights * element
    return weights * bits / 8 + (weights / 64 * 4 if bits == 4 else 0)


def base_bytes(size: Size, element: int, bits: int | None = None) -> float:
    """The base's weights: its blocks', and `element` bytes for each of the others, which are never
    quantised."""
    others = size.parameters - size.layers * size.block_matrices
    return others * element + block_bytes(size, element, bits)


def forward_bytes(size: Size, columns: int, element: int) -> int:
    """Alive together inside one block of a forward without gradients."""
    return batching.forward_bytes(size.width, size.inner, columns, element)


def pass_bytes(size: Size, columns: int, element: int) -> int:
    """The same for a sampler pass, with two concatenated inputs and their source."""
    return forward_bytes(size, columns, element) + 4 * columns * size.width * element


def drawing_bytes(size: Size, rows: int, response: int) -> int:
    """Logits while decoding: at most `CHUNK` are ranked and drawn from at a time."""
    return batching.drawing_bytes(size.vocabulary, rows * response)


def memory_bytes(size: Size, columns: int, element: int) -> int:
    """Keys, values and last hidden states of every column: what a cache policy keeps."""
    return columns * (2 * size.layers * size.kv_heads * size.head_width + size.width) * element


def saved_bytes(size: Size, columns: int, element: int = LAYER_BYTES) -> int:
    """What one sampler pass keeps for its backward: per column 14 tensors of the model's width
    (two inputs, their concatenation, three norms, queries, attention), keys and values, and four
    of the inner width. In mixed precision the inputs of products take half of that."""
    kv = size.kv_heads * size.head_width
    return columns * (14 * size.width + 2 * kv + 4 * size.inner) * element


def chunk_bytes(size: Size) -> int:
    """Logits while fitting: one chunk of cells goes through the head at a time, in eight float32
    copies (teacher's and student's log-probabilities, their loss and its gradient)."""
    return 8 * 4 * max(GPU_LOGITS, size.vocabulary)


def memory(size: Size, setting: Setting) -> dict[str, dict[str, tuple[float, str]]]:
    """Bytes on each device and what they are, term by term, for generating, fitting, evaluating."""
    held, columns = setting.batch_size * setting.length, setting.batch_size * setting.length
    if (
        size.block_length is not None
    ):  # the most that one forward computes: the prompt, or two blocks
        at_once = max(setting.prompt_length, size.block_length) + size.block_length
        columns = setting.batch_size * min(at_once, setting.length)
    weights = (base_bytes(size, setting.element, setting.bits), "the frozen base")
    forward = (forward_bytes(size, columns, setting.element), "one block of a forward")
    logits = (
        drawing_bytes(size, setting.batch_size, setting.max_new_tokens),
        "ranking and drawing; less where nothing is drawn",
    )
    either = max(forward[0], pass_bytes(size, columns, setting.element))
    kept = (
        memory_bytes(size, held, setting.element),
        "of all columns, with their hidden states; only with a cache policy",
    )
    exact = {} if size.block_length is None else {"keys and values": kept}
    return {
        "generate": {"weights": weights, "activations": forward, "logits": logits, **exact},
        "fit": {"weights": weights, **_fit_memory(size, setting)},
        "eval": {
            "weights": weights,
            "joint layer": (size.layer_parameters * setting.element, "the sampler"),
            "activations": (either, "one block of a forward, or a sampler pass"),
            "logits": logits,
            "keys and values": kept,
        },
    }


def _fit_memory(size: Size, setting: Setting) -> dict[str, tuple[float, str]]:
    states = setting.windows * setting.window
    prefix, width = trained_columns(size, setting.length)
    shared = setting.windows * prefix
    columns = shared + states * width
    starts = starts_of(setting.windows, setting.window, setting.depth)
    layer = size.layer_parameters * LAYER_BYTES
    saved = sum(saved_bytes(size, shared + rows * width) for rows in starts)
    cells = [rows * min(setting.max_new_tokens, width) for rows in starts]
    return {
        "layer weights": (layer, "float32"),
        "gradients": (layer, "float32"),
        "AdamW states": (ADAM_STATES * layer, "two means per parameter, float32"),
        "base activations": (
            forward_bytes(size, columns, setting.element) + columns * size.width * setting.element,
            "one block of a forward over every state, and all hidden states",
        ),
        "unroll": (saved, "kept for the backward of all passes; float32, less in mixed precision"),
        "logits": (chunk_bytes(size), "of one chunk of cells, float32; head_chunk makes it less"),
        "kept gradients": (
            2 * 4 * sum(cells) * size.width,
            "float32 hidden states of every compared cell and the slope of its loss",
        ),
    }
