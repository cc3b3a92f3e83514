"""What `stzoo benchmark` does with its arguments."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

from stzoo.benchmark.options import add_benchmark
from stzoo.benchmark.setting import Setting
from stzoo.errors import SpecError

_OF_FORECASTS = ("precision", "batch", "steps", "device", "threads", "against", "repeats", "stream", "plot")
_OF_LOADER = ("data", "mnist", "dataset", "every", "skip_bad", "download")


def run_benchmark(arguments: argparse.Namespace) -> None:
    """Measure, print, and draw the picture that `--plot` names. Whatever can be refused is refused first."""
    if arguments.loader:
        _refuse(arguments, _OF_FORECASTS, "measures forecasts; leave it out with --loader")
        _run_pace(arguments)
        return
    _refuse(arguments, _OF_LOADER, "is for --loader")
    setting = Setting(
        source=arguments.name,
        precision=arguments.precision,
        batch=arguments.batch,
        steps=arguments.steps,
        device=arguments.device,
        threads=arguments.threads,
        against_plain=arguments.against == "plain",
        repeats=arguments.repeats,
        stream=arguments.stream,
    )
    if arguments.plot is not None:
        _check_plot(arguments.plot)
    from stzoo.benchmark.measure import benchmark

    report = benchmark(setting, progress=True)
    print(report.to_json() if arguments.json else report, flush=True)
    if arguments.plot is not None:
        from stzoo.benchmark.roofline import write_roofline

        write_roofline(arguments.plot, report)


def _run_pace(arguments: argparse.Namespace) -> None:
    from stzoo.train.commands import run_pace

    pace = run_pace(arguments)
    print(json.dumps(dataclasses.asdict(pace)) if arguments.json else pace)


def _refuse(arguments: argparse.Namespace, names: tuple[str, ...], says: str) -> None:
    """Raises `SpecError` where one of the options was given: it would not be read."""
    parser = argparse.ArgumentParser()
    add_benchmark(parser)
    for name in names:
        if getattr(arguments, name) != parser.get_default(name):
            raise SpecError(f"--{name.replace('_', '-')} {says}")


def _check_plot(path: Path) -> None:
    """Raises `SpecError` where the picture could not be written."""
    if path.suffix.lower() != ".png":
        raise SpecError(f"--plot is {path}; it must end in .png")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise SpecError(f"--plot is {path}, which cannot be written; name a file in a folder that is there")
