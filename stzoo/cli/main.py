"""From the words of a command line to an exit code: bad input ends in one clear line and exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from stzoo import __version__
from stzoo.cli import (
    archive,
    benchmark,
    cache,
    catalog,
    convert,
    demo,
    evaluate,
    export,
    forecast,
    models,
    published,
    train,
)
from stzoo.errors import StzooError

COMMANDS = (models, forecast, evaluate, train, convert, published, export, catalog, benchmark, archive, cache, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for bad input, or 130 if the user interrupts it.

    Args:
        argv: the words after `stzoo`; None takes those that this process was started with.
    """
    arguments = build_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
    except (StzooError, OSError) as error:
        print(f"stzoo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stzoo: interrupted", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command. Building it imports neither torch nor NumPy, so that `stzoo list` starts at once.

    Each file of `COMMANDS` registers its own commands; what a command line asks for is then `arguments.run`.
    """
    parser = argparse.ArgumentParser(
        prog="stzoo",
        description="Forecast the next frames of a video, a radar loop or any gridded field with pretrained models.",
        epilog="'stzoo COMMAND --help' explains the options of COMMAND. To see a forecast at once: stzoo demo",
    )
    parser.add_argument(
        "--version", action="version", version=f"stzoo {__version__}", help="print the version and exit"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.register(commands)
    return parser
