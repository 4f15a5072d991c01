"""Real processes, started as torchrun starts them, that may be killed at any moment."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["dlmjoint.cli", "dlmjoint.training", "dlmjoint.evaluation.commands"]
)
PATIENCE = 120.0
"""Seconds after which a process is taken to hang."""


def start(
    world_size: int, function: Callable[..., Any], *arguments: Any
) -> list[ForkServerProcess]:
    """Processes that call the function; the server they are forked from has imported everything."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    processes = [
        CONTEXT.Process(target=_as_rank, args=(rank, world_size, port, function, arguments))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    return processes


def finish(processes: list[ForkServerProcess]) -> list[int | None]:
    """Exit statuses; None of one that hung and was killed for it."""
    for process in processes:
        process.join(PATIENCE)
    statuses = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return statuses


def _as_rank(
    rank: int,
    world_size: int,
    port: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "HF_HUB_OFFLINE": "1",
    }
    function(*arguments)


def command(arguments: list[str]) -> None:
    """The `dlmjoint` command with its exit status."""
    from dlmjoint.cli import main

    sys.argv = ["dlmjoint", *arguments]
    main()
