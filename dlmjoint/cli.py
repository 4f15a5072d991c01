"""Commands: a typed function's signature is its flags, its YAML schema and its help."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentParser
from transformers.utils.logging import disable_progress_bar

from dlmjoint.completion import completion
from dlmjoint.disk.atomic import sweep
from dlmjoint.disk.paths import expanded
from dlmjoint.disk.provenance import write_text
from dlmjoint.errors import ConfigError, DataError, LoadError, MismatchError
from dlmjoint.evaluation.recipes import config_of
from dlmjoint.signals import ending_on_request
from dlmjoint.suggest import Parser
from dlmjoint.verbs import COMMANDS, COMPLETION, LM_EVAL, TRAINER_VERBS, answered

Result = TypeVar("Result")


def main(arguments: Sequence[str] | None = None) -> None:
    """The `dlmjoint` command."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if answered(argv):
        return
    if argv[0] == COMPLETION:
        completion(main)
        return
    if argv[0] in TRAINER_VERBS:
        _one_line_errors(lambda: train(argv))
        return
    if argv[0] == LM_EVAL:
        with ending_on_request(KEPT_BY_LM_EVAL):
            _one_line_errors(lambda: lm_eval(argv[1:]))
        return
    rewrite = SHORTHAND.get(argv[0], list)
    flags = [with_underscores(a) if a.startswith("--") else a for a in argv[1:]]
    given = _one_line_errors(lambda: rewrite(flags))
    run(COMMANDS[argv[0]], given, name=f"dlmjoint {argv[0]}")


def with_flags(*settings: str) -> Callable[[list[str]], list[str]]:
    """Arguments with the flags of `settings`, which may be given first without them."""

    def rewrite(arguments: list[str]) -> list[str]:
        bare = list(takewhile(lambda given: not given.startswith("-"), arguments))
        named = zip(settings, bare, strict=False)
        flagged = [part for setting, value in named for part in (f"--{setting}", value)]
        return flagged + arguments[len(flagged) // 2 :]

    return rewrite


def with_underscores(argument: str) -> str:
    """`--dry-run` as `--dry_run`; values stay as they are."""
    flag, equals, value = argument.partition("=")
    return flag.replace("-", "_").replace("__", "--", 1) + equals + value


def with_recipe(arguments: list[str]) -> list[str]:
    """The arguments with a recipe as the config: `--recipe NAME` is `--config FILE`.

    Raises ConfigError if there is no such recipe.
    """
    flat = []
    for given in arguments:
        flag, _, value = given.partition("=")
        flat += [flag, value] if flag == "--recipe" and value else [given]
    if "--recipe" not in flat:
        return flat
    at = flat.index("--recipe")
    return [*flat[:at], "--config", config_of("".join(flat[at + 1 : at + 2])), *flat[at + 2 :]]


SHORTHAND: dict[str, Callable[[list[str]], list[str]]] = {
    "info": with_flags("base"),
    "publish": with_flags("folder", "repo"),
    "eval": with_recipe,
}
"""What the command line may say shorter than the settings it becomes."""
KEPT = {
    "generate": "finished shards stay in {output}; the same command goes on from there",
    "evaluate": "what was decoded stays in {run_dir}; the same command goes on from there",
    "score": "the generations in {run_dir} stay as they are; the same command scores them",
    "bench": "points measured so far stay in {output}; the same command begins anew",
}
"""What a function that is asked to end has kept, and how to go on."""
KEPT_BY_ALL = "what it has written is there whole; the same command begins anew"
"""The same of every other, and of one that was given no such folder."""
KEPT_BY_LM_EVAL = "answers stay where --use_cache says, and the same command goes on from there"
REREADING = ("score",)
"""Functions that work on what another one has made."""


def run(
    command: Callable[..., Any], arguments: Sequence[str] | None = None, name: str | None = None
) -> None:
    """Call a function with the command line's settings; its mistakes end in one line, exit 2.

    Unknown keys are errors in flags and in YAML. A function with an `output` or `run_dir` gets its
    resolved settings saved there, as a file that runs the same again; not so one that makes nothing
    new there: a `dry_run`, or a second scoring, which leaves the settings of the run.
    """
    _logging()
    parser = parser_of(command, name)
    settings = expanded(parser.parse_args(None if arguments is None else list(arguments)))

    def call() -> None:
        resolved = parser.dump(settings.clone(with_meta=False))
        values = parser.instantiate(settings)
        values.pop("config", None)
        folder = settings.get("output") or settings.get("run_dir")
        if folder is not None:
            sweep(Path(str(folder)))
        command(**values)
        makes = not settings.get("dry_run") and command.__name__ not in REREADING
        if makes and folder is not None and Path(str(folder)).is_dir():  # a file says it inside
            write_text(Path(str(folder)) / "config.yaml", resolved)

    with ending_on_request(_kept(command.__name__, settings)):
        _one_line_errors(call)


def _kept(function: str, settings: Mapping[str, Any]) -> str:
    """What is said when a function is asked to end."""
    folder = settings.get("output") or settings.get("run_dir")
    if folder is None or settings.get("dry_run"):
        return KEPT_BY_ALL
    return KEPT.get(function, KEPT_BY_ALL).format(output=folder, run_dir=folder)


def parser_of(command: Callable[..., Any], name: str | None = None) -> ArgumentParser:
    """The parser of a function's settings."""
    does, _, _ = (command.__doc__ or "").partition("Args:")
    parser = Parser(prog=name, description=does.strip())
    parser.add_argument("--config", action="config", help="YAML with any of the settings")
    parser.add_function_arguments(command, sub_configs=True)
    return parser


def train(arguments: Sequence[str]) -> None:
    """`fit` and its relatives, as Lightning users know them."""
    from dlmjoint.training import training  # Lightning takes seconds to import: only they pay

    _logging()
    given = list(arguments)
    # LightningCLI warns of arguments given twice, to it and to the process.
    training(None if given == sys.argv[1:] else given)


def lm_eval(arguments: Sequence[str]) -> None:
    """lm-eval's command line, knowing our model. Raises ConfigError if lm-eval is not installed."""
    from dlmjoint.evaluation.lm_eval.model import command  # an extra, and slow to import

    command(arguments)


def lightning() -> None:
    """The `lightning` command: `fit` and its relatives are ours; everything else belongs to the
    lightning-sdk package, where it is installed."""
    if len(sys.argv) > 1 and sys.argv[1] in TRAINER_VERBS:
        main()
        return
    try:
        from lightning_sdk.cli.entrypoint import main_cli  # pyright: ignore[reportMissingImports]
    except ImportError:
        print(  # noqa: T201  a console script's own answer
            "lightning fit|validate|test|predict --config FILE trains a joint sampler; "
            "other verbs need the lightning-sdk package",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    main_cli()


def _logging() -> None:
    """Our own words at INFO, other people's warnings; known noise left out."""
    disable_progress_bar()  # of transformers; like those of `datasets` below, over in no time
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if "datasets" in sys.modules:  # read its variable already; others need not import it for this
        sys.modules["datasets"].disable_progress_bars()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for chatty in (
        "httpx",
        "fsspec",
        "faiss",
        "matplotlib",
        "lightning.pytorch.utilities.rank_zero",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("DeepSpeed").addFilter(_matters)
    # The hub's client writes its own lines: a second handler would say them twice.
    logging.getLogger("huggingface_hub").propagate = False
    # Batches here are lists of ids or indexing: there are no indices to infer, workers do not help.
    warnings.filterwarnings("ignore", message=".*(infer the batch indices|many workers).*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
    # A resumed run goes on in its own folder; metrics that sum over processes need no second sum;
    # DeepSpeed clips by itself, as it says.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
    warnings.filterwarnings("ignore", message="It is recommended to use .self.log.'val/.*sync_dist")
    warnings.filterwarnings(
        "ignore", message="Since DeepSpeed handles gradient clipping internally"
    )


def _matters(record: logging.LogRecord) -> bool:
    """Not so of DeepSpeed, which transformers imports to save any model: that it found no GPU."""
    return "Setting accelerator to CPU" not in record.getMessage()


def _one_line_errors(call: Callable[[], Result]) -> Result:
    """What the call returns. Our own errors are the user's to mend: one line on stderr and exit
    status 2."""
    try:
        return call()
    except (ConfigError, DataError, LoadError, MismatchError) as error:
        sys.stderr.write(f"dlmjoint: error: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from error
