"""The commands: what they are called, where they are, and the help over all of them.

Nothing here imports a command, so that help, completion and a mistyped name answer at once.
"""

import ast
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.abc import InspectLoader
from importlib.util import find_spec
from typing import Any

from dlmjoint import __version__

FIRST = {
    "sample": "dlmjoint sample --base checkpoints/tiny-dream",
    "generate": "dlmjoint generate --config configs/generate/demo.yaml",
    "fit": "dlmjoint fit --config configs/fit/demo.yaml",
    "eval": "dlmjoint eval --config configs/eval/demo.yaml",
}
"""The commands of a first day, in its order, each with a line to start with."""
TRAINER_VERBS = ("fit", "validate", "test", "predict")
"""Lightning's own; they take a trainer, a model and a data section."""
LM_EVAL = "lm-eval"
"""lm-eval's own command, which then knows the model `dlmjoint`."""
COMPLETION = "completion"
ELSEWHERE = {
    "fit": "Distil trajectories into a joint sampler (LightningCLI).",
    "validate": "Measure a joint sampler on trajectories, as `fit` does between its steps.",
    LM_EVAL: "lm-eval's command line, with --model dlmjoint.",
    COMPLETION: "Print a script that completes commands and settings in bash and zsh.",
}
"""What commands do that are no functions of ours."""
WIDTH, INDENT = 88, 13


class Commands(Mapping[str, Callable[..., Any]]):
    """Functions by the command's name, imported when they are asked for."""

    def __init__(self, where: Mapping[str, str]) -> None:
        self.where = where

    def __getitem__(self, name: str) -> Callable[..., Any]:
        module, _, function = self.where[name].partition(":")
        return getattr(import_module(module), function)

    def __iter__(self) -> Iterator[str]:
        return iter(self.where)

    def __len__(self) -> int:
        return len(self.where)

    def summary(self, name: str) -> str:
        """The first line of the function's docstring, read without importing it."""
        module, _, function = self.where[name].partition(":")
        spec = find_spec(module)
        assert spec is not None
        assert isinstance(spec.loader, InspectLoader)
        for node in ast.parse(spec.loader.get_source(module) or "").body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                return (ast.get_docstring(node) or "").partition("\n")[0]
        raise AssertionError(f"{module} has no function {function}")


COMMANDS = Commands(
    {
        "generate": "dlmjoint.trajectories.generate:generate",
        "eval": "dlmjoint.evaluation.commands:evaluate",
        "score": "dlmjoint.evaluation.commands:score",
        "compare": "dlmjoint.evaluation.commands:compare",
        "calibrate": "dlmjoint.evaluation.commands:calibrate",
        "sample": "dlmjoint.show.command:sample",
        "convert": "dlmjoint.convert:convert",
        "publish": "dlmjoint.publish.command:publish",
        "info": "dlmjoint.costs.info:info",
        "bench": "dlmjoint.bench.command:bench",
    }
)
VERBS = (*COMMANDS, *TRAINER_VERBS[:2], LM_EVAL, COMPLETION)


def overview() -> str:
    """The help over all commands: those of a first day, then the rest."""
    lines = ["usage: dlmjoint COMMAND [--config FILE] [--SETTING VALUE ...]", "", "The first day:"]
    for verb, example in FIRST.items():
        lines += [*_entry(verb), f"{'':{INDENT}}$ {example}"]
    lines += ["", "Then:"]
    for verb in VERBS:
        lines += [] if verb in FIRST else _entry(verb)
    lines += [
        "",
        "dlmjoint COMMAND --help names all settings; docs/start/tutorial.md is a first day.",
    ]
    return "\n".join(lines) + "\n"


def answered(arguments: Sequence[str]) -> bool:
    """Whether that was answered here: help over all commands, the version.

    A name that is no command ends in one line and status 2.
    """
    verb = arguments[0] if arguments else "--help"
    if verb in ("-h", "--help", "help"):
        sys.stdout.write(overview())
    elif verb == "--version":
        sys.stdout.write(f"dlmjoint {__version__}\n")
    elif verb not in {*VERBS, *TRAINER_VERBS}:
        guess = nearest(verb, VERBS) or "; dlmjoint --help names them all"
        sys.stderr.write(f"dlmjoint: error: there is no command {verb!r}{guess}\n")
        raise SystemExit(2)
    else:
        return False
    return True


def nearest(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing where no known name is near."""
    found = get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _entry(verb: str) -> list[str]:
    summary = ELSEWHERE[verb] if verb in ELSEWHERE else COMMANDS.summary(verb)
    told = textwrap.wrap(summary, WIDTH - INDENT)
    return [f"  {verb if n == 0 else '':<{INDENT - 2}}{line}" for n, line in enumerate(told)]
