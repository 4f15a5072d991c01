"""Turn a typed function into a command: YAML and flags in, one clear line out when they are wrong."""

import logging
from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser


def run(command: Callable[..., Any]) -> None:
    """Parse the command line for a function's arguments and call it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(command, sub_configs=True)
    settings = parser.instantiate_classes(parser.parse_args())
    settings.pop("config")
    command(**settings)
