"""The Markdown pages of the repository, taken apart: fenced blocks, inline code, links and headings."""

import argparse
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import fences
from fences import Block

from stzoo.cli.main import build_parser as build_parser

REPOSITORY = Path(__file__).parents[2]
WRITTEN = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]  # by hand, but for the leaderboard
GENERATED = sorted((REPOSITORY / "docs" / "models").glob("*.md"))
PAGES = [*WRITTEN, *GENERATED]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


@cache
def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of these languages, in order."""
    return list(fences.blocks(text_of(page), *languages))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return fences.FENCE.sub("", text_of(page))


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks, on one line each."""
    return [" ".join(code.split()) for code in _INLINE.findall(prose(page))]


def links(page: Path) -> list[str]:
    """The targets of links and pictures that do not lead to another host."""
    return [target for target in _LINK.findall(prose(page)) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """What may stand behind a # in a link to the page: its headings, as GitHub writes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def command_lines(text: str) -> Iterator[list[str]]:
    """The arguments of every `stzoo` in a shell block, whether it is started by itself, by Python or by a launcher."""
    pending = ""
    for line in text.splitlines():
        if line.endswith("\\"):
            pending += line[:-1]
            continue
        pending += line + "\n"
        words = shlex.shlex(pending, posix=True, punctuation_chars="|&;<>")
        words.whitespace_split = True
        try:
            tokens = list(words)
        except ValueError:  # a quotation that goes on in the next line
            continue
        pending = ""
        command: list[str] = []
        for token in [*tokens, "&&"]:
            if not re.fullmatch(r"[|&;<>]+", token):
                command.append(token)
                continue
            while command and re.match(r"[A-Z_]+=", command[0]):
                command.pop(0)
            if command[:1] == ["stzoo"]:
                yield command[1:]
            elif ["-m", "stzoo"] in [command[i : i + 2] for i in range(len(command))]:
                yield command[command.index("stzoo") + 1 :]
            command = []
    assert not pending, f"a quotation or a line is not ended: {pending!r}"


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands below a parser; none if it takes no commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
