"""From the words of a command line to an exit code: bad input ends in one clear line and exit code 2."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

from stzoo import __version__, environment
from stzoo.cli import (
    archive,
    benchmark,
    cache,
    catalog,
    compare,
    convert,
    demo,
    evaluate,
    export,
    forecast,
    live,
    models,
    plot,
    published,
    train,
)
from stzoo.errors import StzooError, printable

COMMANDS = (
    models,
    forecast,
    live,
    evaluate,
    compare,
    train,
    plot,
    convert,
    published,
    export,
    catalog,
    benchmark,
    archive,
    cache,
    demo,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for bad input, or 130 if the user interrupts it.

    Args:
        argv: the words after `stzoo`; None takes those that this process was started with.
    """
    if argv is None:
        _prepare_process()
    written: Path | None = None
    try:
        code, written = _run(argv)
        _flush(sys.stdout)
    except BrokenPipeError:  # the reader of our output went away
        _discard(sys.stdout)
        return 0
    except OSError as error:
        _discard(sys.stdout)
        whole = "" if written is None else f"{printable(str(written))} is written, and only "
        _say(f"stzoo: {whole}what was to be printed is lost, since standard output takes no more: {error.strerror}")
        return 2
    return code


def _run(argv: Sequence[str] | None) -> tuple[int, Path | None]:
    """Run one command.

    Returns:
        Its exit code, and the file or folder that it has written, if its option is called --out.

    Raises:
        BrokenPipeError: the reader of its output goes away. OSError: its output cannot be printed.
    """
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit:  # after --help, --version or a wrong word; by now argparse has printed what it had to say
        _flush(sys.stdout)
        raise
    try:
        with _plain_warnings():
            arguments.run(arguments)
    except BrokenPipeError:
        raise
    except (StzooError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:
            _flush(sys.stdout)  # which raises the same if it was printing that failed
        _say(f"stzoo: {printable(str(error))}")
        return 2, None
    except KeyboardInterrupt:
        _say("stzoo: interrupted")
        return 130, None
    return 0, getattr(arguments, "out", None)


def _say(text: str) -> None:
    """Print a line on standard error. If even that cannot be written, the exit code must do."""
    try:
        if sys.stderr is not None:
            print(text, file=sys.stderr)
        _flush(sys.stderr)
    except OSError:
        _discard(sys.stderr)


def _flush(stream: TextIO | None) -> None:
    """Send what was printed on its way while an error can still be told. Python itself would do so at its end."""
    if stream is not None:
        stream.flush()


def _discard(stream: TextIO | None) -> None:
    """Send what is still to be printed nowhere, so that Python does not fail to print it at its end."""
    try:
        descriptor = -1 if stream is None else stream.fileno()
    except (OSError, ValueError):  # no file of the system's
        return
    if descriptor >= 0:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Inside the block a warning is one line of plain text, without the line of source code that raised it."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"stzoo: warning: {printable(str(message))}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command. Building it imports neither torch nor NumPy, so that `stzoo list` starts at once.

    Each file of `COMMANDS` registers its own commands; what a command line asks for is then `arguments.run`.
    """
    parser = _Parser(
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


class _Parser(argparse.ArgumentParser):
    """argparse's parser. Its errors show wrong words of the command line, where a shell may have put names of files."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _prepare_process() -> None:
    """Settings of the whole process, made only where the command line has a process to itself."""
    if not environment.lies_here():
        os.environ["PYTHONSAFEPATH"] = "1"  # no Python that this one starts takes code from the current folder
    if sys.stdout is None:  # closed; the next file that is opened would take its place, and get what libraries print
        sys.stdout = _closed_output()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text in any encoding


def _closed_output() -> io.TextIOWrapper:
    """An output that takes nothing, in the place of a closed one: whoever prints to it learns that it is closed."""
    return open(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
