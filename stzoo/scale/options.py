"""The options of `stzoo forecast-archive`. Imports no torch: every command line passes here."""

from __future__ import annotations

import argparse
from pathlib import Path

from stzoo.data.options import add_precision
from stzoo.machine import DEVICES
from stzoo.scale.plan import UNIT


def add_forecast_archive(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        help="a folder of clips, a .parquet table of their paths, or a .zarr or .nc archive with a time dimension",
    )
    parser.add_argument(
        "--model", required=True, help="a catalogue name, a folder, a .safetensors file or hf://user/repo"
    )
    parser.add_argument("--steps", type=int, required=True, help="frames of one forecast")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DEST", help="the folder to write, or go on in"
    )
    parser.add_argument("--every", type=int, default=1, metavar="K", help="read frames 0, K, 2K, ...")
    parser.add_argument(
        "--stride", type=int, metavar="N", help="of an archive: frames between two starts, by default 1"
    )
    parser.add_argument("--column", metavar="NAME", help="of a table: the one that holds paths, by default path")
    parser.add_argument(
        "--format", metavar="SUFFIX", help="of clips: that forecasts are written in, such as npy (default), gif or mp4"
    )
    parser.add_argument(
        "--keep-size",
        action="store_true",
        help="leave images and videos at their own size, which the model must take; else they get the model's",
    )
    parser.add_argument(
        "--unit", type=int, default=UNIT, metavar="N", help=f"forecasts that are made and kept together, {UNIT}"
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="that the model runs on")
    add_precision(parser, auto=True)
    parser.add_argument("--threads", type=int, metavar="N", help="of one worker; 1 on Ray, else torch's own number")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, metavar="N", help="on Ray; by default as many as there is room for")
    where.add_argument("--in-process", action="store_true", help="without Ray, one unit after the other")
    parser.add_argument("--json", action="store_true")
