"""The `stzoo` command: one file for each command, its parser and what it does together; main.py puts them together."""

from stzoo.cli.main import main as main
