"""Units done in this process, one after the other, or by workers on Ray Data, which schedules and restarts them."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from stzoo.errors import MissingExtraError, SpecError, StzooError
from stzoo.scale.forecasting import Job, Worker

_STORE = 100 * 2**20  # bytes of Ray's object store: only numbers of units pass through it
_BLOCKS = 4096  # that units are handed out in, at most: each costs Ray some milliseconds
_LIVES = 5  # a unit that has ended so many workers would end all
_QUIET = MappingProxyType(
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # no environment is built anew for workers: theirs is ours
        "RAY_BACKEND_LOG_LEVEL": "fatal",  # what ends a run comes back as an exception
    }
)


def has_ray() -> bool:
    try:
        import_module("ray.data")
    except ImportError:
        return False
    return True


def one_by_one(job: Job, units: list[int]) -> Iterator[tuple[int, int]]:
    """Unit and how many of its items failed, as each is finished."""
    threads = torch.get_num_threads()
    try:
        worker = Worker(job)
        for unit in units:
            yield unit, worker.do(unit)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def ray_started(workers: int | None, threads: int, device: str) -> Iterator[int]:
    """How many workers there is room for: on the Ray that this program has begun, on the cluster that RAY_ADDRESS
    names, or on one of this machine alone, which ends with the block.

    Raises:
        MissingExtraError: Ray is absent.
        SpecError: less room than `workers` want. StzooError: no such cluster.
    """
    if not has_ray():
        raise MissingExtraError('--workers need an extra: pip install "stzoo[scale]"; or use --in-process')
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    ray = import_module("ray")
    ours = not ray.is_initialized()
    if ours:
        _start(ray, None if workers is None else workers * threads)
    try:
        there = ray.cluster_resources()
        room, gpus = int(there.get("CPU", 0)) // threads, int(there.get("GPU", 0))
        if device == "cuda" and not gpus:
            raise SpecError("--device is cuda; Ray knows of no GPU")
        wanted = workers or (min(room, gpus) if device == "cuda" else room) or 1
        if room < wanted:
            what = "one CPU" if threads == 1 else f"{threads} CPUs"
            raise SpecError(f"workers wanted: {wanted}, of {what} each; Ray has room for {room}")
        yield wanted
    finally:
        if ours:
            ray.shutdown()


def _start(ray: Any, cpus: int | None) -> None:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            if port.isdecimal():  # not "auto"
                socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself tries for minutes
            ray.init(address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise StzooError(f"RAY_ADDRESS is {address}, and no cluster can be joined there: {error}") from error
        return
    number = None if cpus is None else max(cpus, os.cpu_count() or 1)
    ray.init("local", num_cpus=number, include_dashboard=False, object_store_memory=_STORE, **quiet)


def on_ray(job: Job, units: list[int], workers: int) -> Iterator[tuple[int, int]]:
    """As `one_by_one`, by so many workers, in the order in which they finish.

    Raises:
        StzooError: what a worker raised; or a unit ended one worker after the other.
    """
    ray, data = import_module("ray"), import_module("ray.data")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    todo = data.from_items([{"unit": unit} for unit in units], override_num_blocks=min(len(units), _BLOCKS))
    todo.context.enable_progress_bars = False
    done = todo.map_batches(
        _Actor,
        batch_size=1,
        fn_constructor_args=(job,),
        compute=data.ActorPoolStrategy(size=min(workers, len(units))),
        num_cpus=job.plan.threads,
        num_gpus=_share(workers, int(ray.cluster_resources().get("GPU", 0))) if job.plan.device == "cuda" else 0,
    )  # a lost worker is begun anew, and its unit done again, as often as it takes: that is Ray Data's default
    try:
        for row in done.iter_rows():
            if row["fatal"]:
                raise StzooError(row["fatal"])
            yield int(row["unit"]), int(row["failed"])
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise StzooError(f"Ray gave up: {last}; what is finished stays, and the same command goes on") from error


def _share(workers: int, gpus: int) -> float:
    """Of a GPU, for each worker. Where there are more workers than GPUs, some read and write while others forecast."""
    return 1 / max(1, -(-workers // max(1, gpus)))


class _Actor:
    """A worker as Ray Data calls it. An error comes back as a word, for Ray would wrap it in pages."""

    def __init__(self, job: Job):
        self._folder, self._worker = job.folder, Worker(job)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        unit, failed, fatal = int(batch["unit"][0]), 0, ""
        try:
            if self._folder.failed(unit) is None and self._folder.attempt(unit) > _LIVES:
                raise StzooError(
                    f"unit {unit} of {self._folder.path} has ended {_LIVES} workers, as where memory is short; begin "
                    "anew with a smaller --unit or fewer --workers"
                )
            failed = self._worker.do(unit)
        except StzooError as error:
            fatal = str(error) or type(error).__name__
        return {"unit": np.array([unit]), "failed": np.array([failed]), "fatal": np.array([fatal])}
