"""The options of `stzoo benchmark`. Imports no torch: every command line passes here."""

from __future__ import annotations

import argparse
from pathlib import Path

from stzoo.data.options import add_options
from stzoo.machine import DEVICES, PRECISION_CHOICES


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """Those that measure a forecaster, and those of ``--loader``."""
    parser.add_argument("name", nargs="?", default="tau-mmnist", help="an entry, a folder or a file; tau-mmnist")
    parser.add_argument("--precision", choices=PRECISION_CHOICES, default="float32", help="that the model runs in")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="clips in one pass")
    parser.add_argument("--steps", type=int, metavar="N", help="frames that one pass forecasts; the model's own number")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="that it runs on")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch; as many as it takes by itself")
    parser.add_argument("--against", choices=["plain"], help="time the plain float32 module, too, in turns")
    parser.add_argument("--repeats", type=int, metavar="N", help="passes that are timed; up to 100, for about 15 s")
    parser.add_argument("--stream", action="store_true", help="the memory of streaming 20 and 1,000 frames, too")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the model below the machine's roofline")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--loader", action="store_true", help="instead, how fast clips are read beside how fast they train"
    )
    add_options(parser, required=False)
