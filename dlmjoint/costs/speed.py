"""Speed-up over one token per forward: by arithmetic, and as ADJUST's authors measured it."""

from typing import Any

from dlmjoint.costs.arithmetic import Setting, Size, decode_flops, forwards
from dlmjoint.costs.memory import block_bytes

COMMITS = (1, 2, 3, 4, 8)
"""The K that are reported."""
PUBLISHED = {
    "marginals": {1: 135.55, 2: 253.84, 3: 327.91, 4: 401.13},
    "joint": {1: 135.55, 2: 207.46, 3: 251.82, 4: 296.19},
}
"""Tokens per second by K, as ADJUST's authors measured them (arXiv 2509.22738, figure 1)."""
PUBLISHED_SETTING = (
    "Dream-7B-Base, unconditional, 127 new tokens, batch 4, with K sampler passes for K tokens and "
    "logits of every column where this decoder makes K - 1 with logits of masked columns"
)
PUBLISHED_SIZE = ("Dream", 28, 3584)
"""Family, layers and width of the base those were measured on."""


def bytes_read(size: Size, setting: Setting, commits: int, joint: bool) -> float:
    """Bytes of weights read from memory to decode one batch of any size: each forward reads the
    blocks and the head, each sampler pass the layer and the head. Small batches take time in
    proportion to this, large ones in proportion to FLOPs."""
    made = forwards(size, setting.max_new_tokens, commits)
    head = size.head * setting.element
    read = made * (block_bytes(size, setting.element, setting.bits) + head)
    passes = setting.max_new_tokens - made if joint else 0
    return read + passes * (size.layer_matrices * setting.element + head)


def speed_ups(size: Size, setting: Setting) -> list[dict[str, Any]]:
    """For every K, how many times fewer FLOPs, and bytes of weights read, than exact decoding."""

    def costs(commits: int, joint: bool) -> tuple[float, float]:
        flops = decode_flops(size, setting.length, setting.max_new_tokens, commits, joint)
        return flops, bytes_read(size, setting, commits, joint)

    exact_flops, exact_read = costs(1, joint=False)
    rows = []
    for commits in COMMITS:
        row: dict[str, Any] = {"commits_per_forward": commits}
        for name, joint in (("marginals", False), ("joint", True)):
            flops, read = costs(commits, joint)
            row[name] = {
                "flops_per_example": flops,
                "by_flops": exact_flops / flops,
                "by_bytes_read": exact_read / read,
            }
        rows.append(row)
    return rows


def published_speed_ups(family: str, size: Size) -> dict[str, dict[int, float]]:
    """The authors' measured throughput by K over their throughput at K = 1; empty for a base they
    did not measure."""
    if (family, size.layers, size.width) != PUBLISHED_SIZE:
        return {}
    return {
        name: {commits: value / rates[1] for commits, value in rates.items()}
        for name, rates in PUBLISHED.items()
    }
