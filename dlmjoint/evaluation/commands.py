"""What `dlmjoint eval`, `score` and `compare` do: typed functions whose arguments are the config."""

from pathlib import Path

from rich.console import Console

from dlmjoint.decoding.early_rules.prophet import Prophet
from dlmjoint.decoding.guides.verified import CONTRACTS
from dlmjoint.decoding.policy import Policy
from dlmjoint.disk.atomic import whole_files
from dlmjoint.disk.provenance import provenance, write_json
from dlmjoint.evaluation.calibrate import (
    VERIFIED,
    acceptance,
    answer_of,
    choose,
    price_per_nat,
    read_recorded,
    replay,
)
from dlmjoint.evaluation.running.plan import check, limited
from dlmjoint.evaluation.running.run import REFERENCE_SEED, run, with_guides_alone
from dlmjoint.evaluation.running.sharding import launch
from dlmjoint.evaluation.scoring.score import fill_cache
from dlmjoint.evaluation.scoring.score import score as score_run
from dlmjoint.evaluation.tasks.base import Task
from dlmjoint.evaluation.telling.expected import Expected, show, show_plan
from dlmjoint.evaluation.telling.report import compare as compare_runs
from dlmjoint.evaluation.telling.report import report
from dlmjoint.models.load import Loading, load_any_base
from dlmjoint.models.sampler_config import JointSamplerConfig


def evaluate(
    base: str,
    decoders: dict[str, Policy],
    tasks: list[Task],
    run_dir: Path,
    seed: int = 0,
    reference_seed: int = REFERENCE_SEED,
    batch_size: int = 64,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    loading: Loading | None = None,
    devices: int | str = 1,
    num_nodes: int = 1,
    limit: int | None = None,
    expected: Expected | None = None,
    dry_run: bool = False,
) -> None:
    """Decode, score, and report: generations, scores.json, report.html, quality.png, a table.

    `--recipe NAME`, in place of `--config FILE`, takes the settings of a published result and says
    of each of its numbers whether this run came within its band (docs/how-to/recipes.md).

    Args:
        base: folder or hub id of the frozen base.
        decoders: decoding policies by name; `NAME-kN` is drawn as a point of the line NAME.
        tasks: what to write and what to measure of it.
        run_dir: where everything is written; an interrupted run goes on there.
        seed: of the decoders' noise, the same for all, so that they can be compared example by
            example.
        reference_seed: of the exact samples that decoders are compared with.
        batch_size: examples decoded together; changes nothing but the speed.
        device: of base and judges.
        dtype: of the base; CPUs want float32.
        revision: pins a hub commit of the base.
        loading: how the base comes into memory: device_map, bits, attention.
        devices: processes on this machine, as Lightning's Trainer takes it. Each decodes its share;
            any number of them gives the same scores. Under torchrun or SLURM: how many were
            started here.
        num_nodes: machines.
        limit: only the first so many examples of every task, for a first look; a later run without
            it goes on from there.
        expected: published numbers, and how near to them the run must come.
        dry_run: check the settings and show what is expected; nothing is loaded or decoded.
    """
    decoders = with_guides_alone(decoders)
    tasks = limited(tasks, limit)
    check(decoders, tasks, seed, reference_seed)
    if expected is not None:
        expected.check(list(decoders), [task.name for task in tasks])
    if dry_run:
        if expected is not None:
            show_plan(expected, Console())
        return
    processes = launch(device, devices, num_nodes)
    loaded = load_any_base(base, processes.device, dtype, revision, loading)
    run(
        loaded,
        decoders,
        tasks,
        run_dir,
        seed=seed,
        reference_seed=reference_seed,
        batch_size=batch_size,
        processes=processes,
    )
    fill_cache(run_dir, base=loaded, decoders=decoders, processes=processes)
    if not processes.first:
        return
    score_run(run_dir, base=loaded, decoders=decoders, device=processes.device)
    if expected is not None:
        show(run_dir, expected, Console())  # first: the report tells of the verdicts, too
    _show(run_dir)


def score(run_dir: Path, tasks: list[Task] | None = None, device: str = "cpu") -> None:
    """Score a run again: nothing is decoded but what the trajectory KL replays.

    Args:
        run_dir: the folder of an evaluation.
        tasks: with other metrics than the run's; null takes the run's own tasks.
        device: of judges and, where needed, the base.
    """
    score_run(run_dir, tasks=tasks, device=device)
    _show(run_dir)


def compare(runs: list[Path], output: Path | None = None) -> None:
    """Show several scored runs in one table.

    Args:
        runs: folders of evaluations.
        output: a folder; table.md and the report.html of all runs are written there.
    """
    console = Console()
    console.print(compare_runs(runs, output).rich())
    if output is not None:
        console.print(output / "report.html", soft_wrap=True)


def calibrate(
    base: str,
    trajectories: Path,
    flip_rate: float = 0.01,
    prophet: Prophet | None = None,
    task: Task | None = None,
    policy: Policy | None = None,
    depth: int = 7,
    n: int = 512,
    output: Path | None = None,
    into: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
) -> None:
    """Choose Prophet's thresholds, a budget's prices and how many drafts stay, from recorded exact
    trajectories.

    Args:
        base: folder or hub id of the frozen base.
        trajectories: a folder of `dlmjoint generate`, or an exact decoder's generations file of an
            evaluation; greedy ones for Prophet.
        flip_rate: share of answers that may change by stopping early.
        prophet: the rule to calibrate: its region (the whole response by default) and its fill.
        task: whose extraction says what an answer is; the whole text by default.
        policy: the decoder: its sampler fills, where the fill needs one, and its next tokens are
            what a `Budget` is to price (marginals by default, a sampler under `refine`).
        depth: tokens after the first that are priced, and drafts that are verified.
        n: trajectories used, at most; half of them choose, half measure.
        output: also write the result there, as JSON.
        into: folder of the sampler that was priced: its config gets the prices, so that a `Budget`
            needs nothing but its dial.
        device: of the base.
        dtype: of the base.
        revision: pins a hub commit of the base.
    """
    loaded = load_any_base(base, device, dtype, revision)
    recorded = read_recorded(trajectories, n)
    answer = answer_of(loaded, task)
    decoder = (policy or Policy()).prepare(loaded)
    replayed = replay(loaded, recorded, prophet or Prophet(), decoder, answer)
    found = choose(replayed, flip_rate)
    rate = [round(value, 4) for value in price_per_nat(loaded, decoder, recorded, depth)]
    levels = {name: getattr(found.threshold, name) for name in ("high", "mid", "low")}
    result = {
        "prophet": {
            "threshold": levels,
            "flip_rate": found.flip_rate.to_json(),
            "forwards_saved": found.forwards_saved,
        },
        "budget": {"rate": rate},
        "verified": {
            order: [
                round(share, 4)
                for share in acceptance(loaded, decoder, recorded[:VERIFIED], depth, order)
            ]
            for order in CONTRACTS
        },
    }
    if output is not None:
        write_json(output, result | {"provenance": provenance({"trajectories": trajectories})})
    if into is not None:
        config = JointSamplerConfig.from_pretrained(into)
        config.price_per_nat = rate
        with whole_files(into) as temporary:
            config.save_pretrained(temporary)
    Console().print_json(data=result)


def _show(run_dir: Path) -> None:
    console = Console()
    console.print(report(run_dir))
    for name in ("scores.json", "report.html", "quality.png"):
        if (run_dir / name).exists():
            console.print(run_dir / name, soft_wrap=True)
