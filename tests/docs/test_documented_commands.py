"""Every `stzoo` command line of the pages is one that the program takes."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
from docs.pages import PAGES, REPOSITORY, blocks, build_parser, command_lines, inline_code, name_of, subparsers

SHELL = [
    (page, block)
    for page in PAGES
    for block in blocks(page, "bash", "sh", "console", "")
    if block.marks.get("needs") != "edits"
]
EXPERIMENTS = {path.name: path.read_text("utf-8") for path in (REPOSITORY / "docs" / "experiments").glob("*.py")}


@pytest.mark.parametrize(("page", "block"), SHELL, ids=lambda x: x.line if hasattr(x, "line") else name_of(x))
def test_the_command_lines_of_a_block_parse(page: Path, block: object, capsys: pytest.CaptureFixture[str]) -> None:
    del page
    parser = build_parser()
    for arguments in command_lines(block.text):  # type: ignore[attr-defined]
        try:
            parser.parse_args(arguments)
        except SystemExit:
            pytest.fail(f"stzoo {shlex.join(arguments)}: {capsys.readouterr().err}")


def test_command_lines_are_found_whatever_starts_them() -> None:
    text = "\n".join([
        'pip install "stzoo[x]" && stzoo demo  # stzoo list',
        "A=1 stzoo list \\",
        "    --json > list.json",
        "torchrun --nproc-per-node 2 -m stzoo train tau-mmnist | tee log",
        'python -c "',
        'import stzoo"',
    ])  # fmt: skip
    assert list(command_lines(text)) == [["demo"], ["list", "--json"], ["train", "tau-mmnist"]]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_in_the_text_exist(page: Path) -> None:
    """Inline code may be a part of a command, so only its command's name and its options are looked up."""
    options = options_of(build_parser()) | {found for text in EXPERIMENTS.values() for found in flags(text)}
    for code in inline_code(page):
        if match := re.match(r"(?:[A-Z_]+=\S+ )*stzoo ([a-z].*)", code):
            check(match[1].split(), code)
        elif match := re.match(r"(?:[A-Z_]+=\S+ )*python docs/experiments/(\S+)(.*)", code):
            assert flags(match[2]) <= flags(EXPERIMENTS[match[1]]), code
        elif code.startswith("--"):
            assert flags(code) <= options, code


def check(words: list[str], code: str) -> None:
    parser = build_parser()
    while words and (below := subparsers(parser)):
        assert words[0] in below, code
        parser, words = below[words[0]], words[1:]
    assert flags(" ".join(words)) <= options_of(parser), code


def flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of all parsers below it."""
    return set(parser._option_string_actions).union(*map(options_of, subparsers(parser).values()))
