"""Processes that train together on loopback, as a launcher would start them. Imported by them and by the tests."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def started(count: int, function: Callable[..., None], *given: Any) -> list[Any]:
    """Processes of rank 0, 1, ..., each of which runs `function(*given)`."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, "stzoo.train", "accelerate"])  # imported once, for all of them
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    running = []
    for rank in range(count):
        environment = {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "RANK": str(rank),
            "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        process = processes.Process(target=_run, args=(environment, function, given))
        process.start()
        running.append(process)
    return running


def ended(running: list[Any]) -> list[int]:
    """Their exit codes. Whoever takes longer than a minute is killed."""
    for process in running:
        process.join(60)
        process.kill()
        process.join()
    return [process.exitcode for process in running]


def _run(environment: dict[str, str], function: Callable[..., None], given: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*given)


def told(folder: Path, function: Callable[..., None], *given: Any) -> None:
    """Run it, and write down what it raised, in `folder`, by rank."""
    try:
        function(*given)
    except Exception as error:
        folder.mkdir(exist_ok=True)
        (folder / f"{os.environ['RANK']}.txt").write_text(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        raise SystemExit(2) from error
