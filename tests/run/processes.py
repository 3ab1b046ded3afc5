"""Processes that start in milliseconds: forked, because importing torch takes most of a short run."""

import atexit
import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.context import ForkProcess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(
    log: Path, target: Callable[..., object], *arguments: object, **environment: object
) -> ForkProcess:
    """Call a function in its own process, in the root of the repository.

    Args:
        log: File that receives all output.
        target: The function; `segdistill.cli.main` runs a command.
        arguments: Its arguments.
        environment: Variables to set.
    """
    process = multiprocessing.get_context("fork").Process(
        target=_call, args=(log, target, arguments, environment)
    )
    process.start()
    # A test that fails must not leave a process that Python would wait for.
    atexit.register(process.kill)
    return process


def run(log: Path, target: Callable[..., object], *arguments: object) -> None:
    """Call a function in its own process, which must succeed."""
    _finish([start(log, target, *arguments)], log)


def run_two(log: Path, target: Callable[..., object], *arguments: object) -> None:
    """Call a function in two processes, with the variables that `torchrun --nproc-per-node 2` sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "GROUP_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "none",
    }
    ranks = [{"RANK": rank, "LOCAL_RANK": rank, **group} for rank in (0, 1)]
    _finish([start(log, target, *arguments, **rank) for rank in ranks], log)


def _finish(processes: list[ForkProcess], log: Path) -> None:
    for process in processes:
        process.join(120)
        process.kill()
    assert {process.exitcode for process in processes} == {0}, log.read_text()[-2000:]


def _call(
    log: Path,
    target: Callable[..., object],
    arguments: tuple[object, ...],
    environment: dict[str, object],
) -> None:
    with log.open("a", buffering=1) as output, redirect_stdout(output), redirect_stderr(output):
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
        os.chdir(ROOT)
        os.environ.update({name: str(value) for name, value in environment.items()})
        target(*arguments)
