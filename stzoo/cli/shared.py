"""What several commands share: how a command is added, and the options that mean the same in each of them.

Nothing here imports torch or NumPy before a command runs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from stzoo import catalog
from stzoo.data import DATASETS, Dataset, Reading, open_dataset
from stzoo.errors import SpecError
from stzoo.machine import BACKEND_CHOICES, BACKENDS, DEVICES, PRECISION_CHOICES, PRECISIONS
from stzoo.published import info, published
from stzoo.spec import ModelSpec

Arguments = argparse.Namespace
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # what `add_subparsers` returns

MODEL = (
    "a name that 'stzoo list' or 'stzoo list --published' shows, a folder that save_pretrained or 'stzoo train' wrote, "
    "a .safetensors file, or hf://USER/REPO for a repository of the Hugging Face hub"
)

PICTURE = 'a name that ends in .png, .svg or .pdf (drawing needs an extra: pip install "stzoo[plot]")'


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[Arguments], None],
    *,
    help: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add the command `name`, which calls `run`; the caller adds its options to the parser that comes back.

    Args:
        help: a short phrase for the list of all commands.
        description: whole sentences for the command's own --help.
        example: one command line, shown below the options.
    """
    parser = commands.add_parser(name, help=help, description=description, epilog=f"Example: {example}")
    parser.set_defaults(run=run)
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """``--model MODEL``, of the commands that forecast."""
    parser.add_argument("--model", required=True, metavar="MODEL", help=f"the model that forecasts: {MODEL}")


def check_model_name(source: str) -> None:
    """Refuse a name that no model has before torch is imported, which takes seconds.

    Raises:
        UnknownModelError: it is neither a path nor an address, and there is no model of this name.
    """
    if not (is_path(source) or source.startswith("hf://") or os.path.exists(source)):
        info(source)


def is_path(source: str) -> bool:
    """Whether a source leads to a model on this machine, as far as its text and the folders here tell."""
    if source.startswith("hf://") or source in catalog.entries() or source in published():
        return False
    return os.sep in source or source.startswith((".", "~")) or source.endswith(".safetensors") or os.path.isdir(source)


def check_picture(option: str, path: Path) -> None:
    """Refuse a picture that could not be drawn or written, before anything is computed for it.

    Args:
        option: what names the picture, for the message.
        path: the file.

    Raises:
        SpecError: no chart can be written there. MissingExtraError: matplotlib is not installed.
    """
    from stzoo.charts.style import ENDINGS, SUFFIXES, check_installed

    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(f"{option} is {path}; it must end in {ENDINGS}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise SpecError(f"{option} is {path}, which cannot be written; name a file in a folder that is there")
    check_installed()


def add_every(parser: argparse.ArgumentParser, of: str) -> None:
    """``--every K``; `of` says what the frames are taken from."""
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="K",
        help=f"use only frames 0, K, 2K, ... of {of} (default: 1, all)",
    )


def add_bits(parser: argparse.ArgumentParser) -> None:
    """``--bits N``, of the commands that read arrays and deep images."""
    parser.add_argument(
        "--bits",
        type=int,
        metavar="N",
        help="number of bits that integers have, such as 12 for values from 0 to 4095 in uint16; the forecast has the "
        "same scale (default: all bits of their type)",
    )


def add_size_and_color(parser: argparse.ArgumentParser, *, arrays: bool = True) -> None:
    """``--size`` and ``--color``, of the commands that forecast frames of any size and colour; see `resize_of`.

    Args:
        arrays: --size brings arrays to the model's size, too.
    """
    pictures = "images, videos and arrays" if arrays else "images and videos"
    parser.add_argument(
        "--size",
        choices=("model", "own"),
        help=f"size of the forecast: with model, {pictures} are brought to the size that the model was trained on, and "
        "the forecast stays there; with own, the model runs at their own size (default: images and videos are forecast "
        "at the model's size and come back at their own, arrays and maps run at their own size)",
    )
    parser.add_argument(
        "--color",
        choices=("gray",),
        help="gray makes one gray forecast of frames in colour (default: a model that was trained on gray frames "
        "forecasts each channel of frames in colour)",
    )


def resize_of(arguments: Arguments) -> bool | None:
    """What ``--size`` says, as the argument `resize` of `Forecaster.rollout`."""
    size: str | None = arguments.size
    return None if size is None else size == "model"


def add_map(parser: argparse.ArgumentParser, of: str) -> None:
    """``--variable NAME`` and ``--time NAME``, of the commands that read netCDF and Zarr; `of` says which file."""
    parser.add_argument(
        "--variable",
        metavar="NAME",
        help=f"name of the variable to forecast, if {of} holds several",
    )
    parser.add_argument(
        "--time",
        metavar="NAME",
        help=f"name of the dimension of time of {of} (default: the one that its name or its attributes tell)",
    )


def add_units(parser: argparse.ArgumentParser, *, forecasts: bool = True) -> None:
    """``--units UNIT`` of rain, and of commands that write forecasts ``--missing``."""
    parser.add_argument(
        "--units",
        metavar="UNIT",
        help="for a model of rain, the UNIT of the numbers in arrays and maps: mm/h, dBZ, dBR or another spelling of "
        f"these, such as kg m-2 s-1{', which is also that of the forecast' if forecasts else ''} (default: what the "
        "attribute units of a map says, else dBR)",
    )
    if forecasts:
        parser.add_argument(
            "--missing",
            choices=("keep", "fill"),
            default="keep",
            help="for a model of rain, what a forecast in floats holds where nothing was observed along the path of "
            "the rain: with keep NaN, with fill what the model makes of it (default: %(default)s)",
        )


def add_matched(parser: argparse.ArgumentParser) -> None:
    """``--matched``, of the commands that forecast or measure forecasts."""
    parser.add_argument(
        "--matched",
        action="store_true",
        help="give each frame of the forecast the values of the last past frame, carried along its motion, in the "
        "order of its own pixels. The plain forecast is a mean of what may come, and smooth; in a matched one areas "
        "and peaks, as of rain, keep their sizes",
    )


def add_precision(parser: argparse.ArgumentParser, *, auto: bool = False) -> None:
    """``--precision``. Commands whose figures are kept must name the precision, so they offer no `auto`."""
    meaning = "number format that the model computes in"
    if auto:
        meaning += "; auto is bfloat16 if this machine multiplies faster in it, else float32"
    parser.add_argument(
        "--precision",
        choices=PRECISION_CHOICES if auto else PRECISIONS,
        default="float32",
        help=f"{meaning} (default: %(default)s)",
    )


def add_backend(parser: argparse.ArgumentParser, *, auto: bool = False) -> None:
    """``--backend``. Commands whose figures are kept must name the backend, so they offer no `auto`."""
    meaning = "what computes the forecasts; onnxruntime is faster for small models such as tau-mmnist"
    if auto:
        meaning += ", auto is the faster one, by a measurement at the first forecast"
    parser.add_argument(
        "--backend",
        choices=BACKEND_CHOICES if auto else BACKENDS,
        default="torch",
        help=f"{meaning} (default: %(default)s)",
    )


def add_device(parser: argparse.ArgumentParser, default: str | None, help: str) -> None:
    """``--device``; None as default leaves the choice to the command."""
    parser.add_argument("--device", choices=DEVICES, default=default, help=help)


def add_any_device(parser: argparse.ArgumentParser) -> None:
    """``--device DEVICE``, of commands that load a model and run it once; `stzoo.load` checks DEVICE."""
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="DEVICE",
        help="DEVICE on which the model runs, such as cpu, cuda, cuda:1, mps or xpu (default: %(default)s)",
    )


def add_json(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """``--json``, of every command whose output a program may read."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_data_folder(parser: argparse.ArgumentParser, *, default: str, required: bool = True) -> None:
    """``--data DIR``, or ``--mnist DIR`` for Moving MNIST; and ``--dataset``, which says what DIR holds.

    Args:
        default: which dataset it is if no option says so, in words.
    """
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("--data", type=Path, metavar="DIR", help="folder of the dataset, or of your own clips")
    where.add_argument(
        "--mnist",
        type=Path,
        metavar="DIR",
        help="folder with the files of MNIST; short for --dataset mmnist --data DIR",
    )
    parser.add_argument(
        "--dataset",
        choices=sorted(DATASETS),
        help=f"dataset that the folder holds; clips stands for files of your own (default: {default})",
    )


def add_dataset(parser: argparse.ArgumentParser, *, default: str, required: bool = True) -> None:
    """The folder of a dataset as in `add_data_folder`, and how the files in it are read."""
    add_data_folder(parser, default=default, required=required)
    add_every(parser, "each recording")
    add_units(parser, forecasts=False)
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="skip files that cannot be read, with a warning for each (default: the first one is an error)",
    )
    parser.add_argument(
        "--download",
        metavar="URL",
        help="fetch the files of MNIST that DIR lacks from the folder with the https address URL",
    )


def dataset_and_folder(arguments: Arguments) -> tuple[str | None, Path | None]:
    """The dataset and the folder that --dataset, --data and --mnist name; None for what they leave open.

    Raises:
        SpecError: --mnist and --dataset contradict each other.
    """
    if arguments.mnist is None:
        return arguments.dataset, arguments.data
    if arguments.dataset not in (None, "mmnist"):
        raise SpecError(f"--mnist names the digits of mmnist, --dataset is {arguments.dataset}; use --data DIR")
    return "mmnist", arguments.mnist


def chosen_dataset(
    arguments: Arguments, spec: ModelSpec, default: str, zoom: float = 1.0, *, own_size: bool = False
) -> tuple[str, Dataset]:
    """The name of the chosen dataset, and the dataset itself, opened to be read as `spec` needs it.

    Args:
        arguments: those of a command that has the options of `add_dataset`.
        default: the dataset that the folder holds if no option names one.
        zoom: how many times larger the training part is read, for windows to be cut from it.
        own_size: frames stay at the size that their file has, which is for clips of the user's own.

    Raises:
        SpecError: the options contradict each other, or name no folder. DataError: the dataset cannot be opened.
    """
    named, folder = dataset_and_folder(arguments)
    name = named or default
    if folder is None:
        raise SpecError("name the folder of the dataset with --data DIR")
    if own_size and name != "clips":
        raise SpecError(f"--size own is for your own clips; the frames of {name} have the size that its protocol says")
    if arguments.every < 1:
        raise SpecError(f"--every is {arguments.every}; it must be at least 1")
    if arguments.download:
        if name != "mmnist":
            raise SpecError(f"--download fetches MNIST's files; those of {name} must be in {folder} already")
        from stzoo.data.mmnist import download_digits

        download_digits(folder, arguments.download)
    if arguments.units is not None and name != "clips":
        raise SpecError(f"--units is for your own clips; the numbers of {name} are in the unit that its files have")
    reading = Reading.of(
        spec, zoom=zoom, every=arguments.every, skip_bad=arguments.skip_bad, own_size=own_size, units=arguments.units
    )
    return name, open_dataset(name, folder, reading)
