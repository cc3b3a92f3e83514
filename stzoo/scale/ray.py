"""Workers on Ray Data, which hands units to them and begins lost workers anew; and whether Ray is used at all."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np

from stzoo import environment
from stzoo.errors import MissingExtraError, SpecError, StzooError, printable
from stzoo.scale.worker import Job, Worker

_STORE = 100 * 2**20  # bytes of Ray's object store: only numbers of units pass through it
_BLOCKS = 4096  # into how many blocks units are cut at most: each block costs Ray some milliseconds
_LIVES = 5  # a unit that has ended so many workers would end every other worker too
_QUIET = MappingProxyType(
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers use this environment, and none is built for them
        "RAY_BACKEND_LOG_LEVEL": "fatal",  # what ends a run comes back as an exception
    }
)


def uses_ray(workers: int | None, in_process: bool) -> bool:
    """Whether workers on Ray make the forecasts: they do if Ray is installed and `in_process` is false.

    Raises:
        MissingExtraError: a number of workers is asked for, and Ray is not installed.
    """
    if in_process:
        return False
    try:
        for name in ("ray", "ray.data"):
            import_module(name)
    except ImportError as error:
        if workers is None:
            return False
        raise MissingExtraError('--workers needs an extra: pip install "stzoo[scale]"; or leave it out') from error
    return True


@contextmanager
def ray_started(workers: int | None, threads: int, device: str) -> Iterator[int]:
    """Yields how many workers Ray will run.

    If this program has started Ray, that one is used; otherwise the cluster that RAY_ADDRESS names; otherwise a Ray of
    this machine alone, which ends with the block. The workers of the last two run no code of the current folder.

    Args:
        workers: how many are asked for; None for as many as there is room for.
        threads: how many CPUs each worker takes.
        device: "cuda" where each worker also takes a GPU, or its share of one.

    Raises:
        SpecError: there is no room for so many workers, or there is no GPU.
        StzooError: there is no cluster at RAY_ADDRESS.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    ray = import_module("ray")
    ours = not ray.is_initialized()
    at_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if ours:
            _start(ray, None if workers is None else workers * threads)
        there = ray.cluster_resources()
        room, gpus = int(there.get("CPU", 0)) // threads, int(there.get("GPU", 0))
        if device == "cuda" and not gpus:
            raise SpecError("--device is cuda, and Ray knows of no GPU; use --device cpu, or join nodes that have GPUs")
        wanted = workers or (min(room, gpus) if device == "cuda" else room) or 1
        if room < wanted:
            what = "one CPU" if threads == 1 else f"{threads} CPUs"
            raise SpecError(
                f"workers wanted: {wanted}, each with {what}; Ray has room for {room}; lower --workers or --threads"
            )
        yield wanted
    finally:
        if ours:
            ray.shutdown()
            if threading.current_thread() is threading.main_thread():
                # Ray leaves its own handler behind, with which no later training of this process could save itself
                signal.signal(signal.SIGTERM, at_sigterm)


def _start(ray: Any, cpus: int | None) -> None:
    # Ray puts the current folder first on its workers' path, except for jobs that come from a Ray client.
    job = ray.job_config.JobConfig(_client_job=not environment.lies_here())
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "job_config": job}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            if port.isdecimal():  # which is not so for "auto"
                socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself tries for minutes
            ray.init(address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise StzooError(f"RAY_ADDRESS is {address}, and no cluster can be joined there: {error}") from error
        return
    number = None if cpus is None else max(cpus, os.cpu_count() or 1)
    ray.init("local", num_cpus=number, include_dashboard=False, object_store_memory=_STORE, **quiet)


def work_on_ray(job: Job, units: list[int], workers: int) -> Iterator[tuple[int, int]]:
    """Make units on so many workers. Yields each unit, and how many of its items failed, in the order they finish.

    Raises:
        StzooError: a worker raised it, or a unit has ended one worker after the other.
    """
    if not units:
        return
    ray, data = import_module("ray"), import_module("ray.data")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    todo = data.from_items([{"unit": unit} for unit in units], override_num_blocks=min(len(units), _BLOCKS))
    todo.context.enable_progress_bars = False
    options = job.plan.options
    made = todo.map_batches(
        _Actor,
        batch_size=1,
        fn_constructor_args=(job,),
        compute=data.ActorPoolStrategy(size=min(workers, len(units))),
        num_cpus=options.threads,
        num_gpus=_share(workers, int(ray.cluster_resources().get("GPU", 0))) if options.device == "cuda" else 0,
    )  # by default Ray Data begins a lost worker anew, and its unit again, as often as it takes
    try:
        for row in made.iter_rows():
            if row["fatal"]:
                raise StzooError(row["fatal"])
            yield int(row["unit"]), int(row["failed"])
    except ray.exceptions.RayError as error:
        last = printable(str(error).strip().splitlines()[-1])
        raise StzooError(f"Ray gave up: {last}; what is finished stays, and the same command goes on") from error


def _share(workers: int, gpus: int) -> float:
    """How much of a GPU each worker gets. If workers share one, some read and write while another forecasts."""
    return 1 / max(1, -(-workers // max(1, gpus)))


class _Actor:
    """A worker in the form that Ray Data calls. It returns an error as text, which Ray would wrap in pages."""

    def __init__(self, job: Job):
        self._folder, self._worker = job.folder, Worker(job)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch holds one unit, (1,) int64. Returns it with `failed`, (1,) int64, and `fatal`, (1,) text."""
        unit, failed, fatal = int(batch["unit"][0]), 0, ""
        try:
            if self._folder.failed(unit) is None and self._folder.attempt(unit) > _LIVES:
                raise StzooError(
                    f"unit {unit} of {self._folder.path} has ended {_LIVES} workers, as happens where memory is short; "
                    "begin anew with a smaller --unit or fewer --workers"
                )
            failed = self._worker.do(unit)
        except StzooError as error:
            fatal = str(error) or type(error).__name__
        return {"unit": np.array([unit]), "failed": np.array([failed]), "fatal": np.array([fatal])}
