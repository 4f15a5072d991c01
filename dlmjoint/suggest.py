"""Parsers whose complaints about a wrong key name the nearest right one."""

import inspect
import pkgutil
import re
from importlib import import_module
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.verbs import nearest

# Dataclasses that a user's own may take the place of; jsonargparse takes subclasses of no others.
set_parsing_settings(subclasses_enabled=[Draw, Policy])

CLASS = re.compile(r"Problem with given class_path '([\w.]+)'")
COMPLAINTS = {
    "flag": re.compile(r"unrecognized arguments: (--[\w.+-]+)"),
    "option": re.compile(r"(?:Option|does not accept option) '([\w.]+)'"),
    "attribute": re.compile(r"module '([\w.]+)' has no attribute '(\w+)'"),
    "module": re.compile(r"No module named '([\w.]+)'"),
}
"""What jsonargparse says of a flag, a key, a class and a module that there is not."""


class Parser(ArgumentParser):
    """A parser whose errors have a suggestion behind them."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with status 2. An unknown key, class or module is followed by the one most like it."""
        parser = getattr(ex, "subcommand_parser", None) or self
        super().error(message + suggestion(message, parser), ex)


def suggestion(message: str, parser: ArgumentParser) -> str:
    """`; did you mean ...?`, or nothing where the message is of something else or nothing is near."""
    for kind, complaint in COMPLAINTS.items():
        if not (said := complaint.search(message)):
            continue
        wrong = said[said.re.groups]
        if kind == "flag":
            return nearest(wrong, list(_flags(parser)))
        if kind == "option":
            owners = CLASS.findall(message[: said.start()])
            return nearest(wrong, _settings(owners[-1]) if owners else _keys(parser))
        package, _, name = ".".join(said.groups()).rpartition(".")
        return nearest(name, _members(package) if package else ["dlmjoint"])
    return ""


def _flags(parser: ArgumentParser) -> dict[str, Any]:
    return parser._option_string_actions


def _keys(parser: ArgumentParser) -> list[str]:
    return [flag.removeprefix("--") for flag in _flags(parser) if flag.startswith("--")]


def _settings(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    return list(inspect.signature(getattr(import_module(module), name)).parameters)


def _members(module: str) -> list[str]:
    """What a class_path may go on with: classes, and the modules of a package."""
    loaded = import_module(module)
    classes = [name for name, value in vars(loaded).items() if inspect.isclass(value)]
    return classes + [one.name for one in pkgutil.iter_modules(getattr(loaded, "__path__", ()))]
