"""The command-line options that name a dataset, and what they stand for."""

from __future__ import annotations

import argparse
from pathlib import Path

from stzoo.data import DATASETS, Dataset, Reading, open_dataset
from stzoo.errors import SpecError
from stzoo.machine import PRECISION_CHOICES, PRECISIONS
from stzoo.spec import ModelSpec


def add_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """``--data DIR``, or ``--mnist DIR`` for the digits; which dataset that is, and how it is read."""
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("--data", type=Path, metavar="DIR", help="folder of the dataset, or one of your own")
    where.add_argument("--mnist", type=Path, metavar="DIR", help="the same as --dataset mmnist --data DIR")
    parser.add_argument("--dataset", choices=sorted(DATASETS), help="what DIR holds; by default what the model is for")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="keep every K-th frame of a recording")
    parser.add_argument("--skip-bad", action="store_true", help="go on without files that cannot be read")
    parser.add_argument("--download", metavar="URL", help="https base to fetch MNIST's files from where DIR lacks them")


def add_precision(parser: argparse.ArgumentParser, *, auto: bool = False) -> None:
    """What the model runs in; commands that report figures name one, and so take no `auto`."""
    choices = PRECISION_CHOICES if auto else PRECISIONS
    parser.add_argument("--precision", default="float32", choices=choices, help="that the model runs in")


def chosen(arguments: argparse.Namespace, spec: ModelSpec, default: str, zoom: float = 1.0) -> tuple[str, Dataset]:
    """The dataset's name, and the dataset read as `spec` wants it, its training part `zoom` times larger.

    Raises:
        SpecError: options that do not go together. DataError: the dataset cannot be opened.
    """
    name, folder = arguments.dataset or default, arguments.data
    if arguments.mnist is not None:
        if arguments.dataset not in (None, "mmnist"):
            raise SpecError(f"--mnist names the digits of mmnist, --dataset is {arguments.dataset}; give --data")
        name, folder = "mmnist", arguments.mnist
    if folder is None:
        raise SpecError("name the folder of the dataset with --data DIR")
    if arguments.every < 1:
        raise SpecError(f"--every is {arguments.every}; it must be at least 1")
    if arguments.download:
        if name != "mmnist":
            raise SpecError(f"--download fetches MNIST's files; {name} has to be in {folder} already")
        from stzoo.data.mmnist import download_digits

        download_digits(folder, arguments.download)
    reading = Reading.of(spec, zoom=zoom, every=arguments.every, skip_bad=arguments.skip_bad)
    return name, open_dataset(name, folder, reading)
