"""The table of verified decoders: what was measured of their rounds, and what a round costs on a device."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from dlmjoint.costs.arithmetic import Size, measure
from dlmjoint.costs.decoded import cost
from dlmjoint.costs.drafts import Device, Round
from dlmjoint.errors import DataError
from dlmjoint.evaluation.running import generations
from dlmjoint.models.files import ModelFiles
from dlmjoint.models.load import read_config

ROWS = (1, 4, 16)
"""Batch sizes of the table."""
LENGTHS = (128, 512)
"""Canvas columns of the table."""


def tell_rounds(
    base: str,
    run_dir: Path = Path("runs/tiny/verified"),
    task: str = "unconditional",
    device: Device | None = None,
) -> None:
    """Print what an evaluation's decoders spend per round, and their speed-up over one token per forward
    by arithmetic, were the base another.

    Args:
        base: folder or hub id of the base the arithmetic is about; its config.json is enough.
        run_dir: the folder of an evaluation, such as configs/eval/verified.yaml's.
        task: of whose examples.
        device: what the arithmetic is about; an H100 by default.
    """
    size = measure(*read_config(ModelFiles.find(base, None, weights=False)))
    lines = table(run_dir, task, size, device or Device())
    Console().print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def table(run_dir: Path, task: str, size: Size, device: Device) -> Iterator[str]:
    """Lines of a Markdown table. Raises DataError if there are no generations of the task."""
    settings = [(length, rows) for length in LENGTHS for rows in ROWS]
    heads = [
        "decoder",
        "rounds",
        "tokens / round",
        "canvases / round",
        "columns / canvas",
        "passes / round",
    ]
    heads += [f"{length}·{rows}" for length, rows in settings]
    yield f"| {' | '.join(heads)} |"
    yield "|---" + "|--:" * (len(heads) - 1) + "|"
    found = sorted(run_dir.glob(f"generations/*/{task}.jsonl"))
    if not found:
        raise DataError(f"{run_dir} has no generations of {task}: run dlmjoint eval first")
    for path in found:
        lines = generations.read(path)
        spent = cost(lines, None)
        rounds = spent["base_forwards"]
        longest = max(len(line.prompt) + len(line.tokens) for line in lines)
        tokens, canvases, passes = (
            spent[key] / rounds for key in ("tokens", "canvases", "sampler_passes")
        )
        share = spent["columns"] / spent["canvases"]
        speeds = [
            Round(size, device, rows, round(length * share / longest), length).speed_up(
                tokens, canvases, passes
            )
            for length, rows in settings
        ]
        cells = [rounds / spent["examples"], tokens, canvases, share, passes]
        shown = [f"{cell:.1f}" if cell >= 10 else f"{cell:.2f}" for cell in [*cells, *speeds]]
        yield f"| {path.parent.name} | {' | '.join(shown)} |"
