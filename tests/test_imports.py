"""Imports point one way: a room imports only from rooms above it in `ROOMS`, wherever in a file the import stands.

Every import statement counts, also one inside a function and one for type checkers only.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import stzoo

PACKAGE = Path(stzoo.__file__).parent
ROOMS = (  # a room is a file or a folder of the package; lowest first
    "errors", "threads", "html", "progress", "spec", "environment", "machine", "files", "private", "hashing",
    "addresses", "slowness", "download", "viz", "charts", "figures", "catalog", "models", "unroll", "tensorfile",
    "weights", "frames", "showing", "data", "hub", "adapting", "convert", "published", "metrics", "tracing", "engine",
    "hindcast", "export", "codec", "live", "forecaster", "opening", "evaluate", "demo", "benchmark", "scale", "train",
    "release", "cli",
)  # fmt: skip
BELONGS_TO_CLI = {"stzoo.__main__"}  # although it lies elsewhere: `python -m stzoo`


def modules() -> dict[str, Path]:
    """Every file of the package by its module's name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["stzoo", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """The modules of the package that a file names in its import statements, and the line of each."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            whence = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{whence}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in names:
            if target.split(".")[0] == "stzoo":
                yield next(m for m in (target, target.rpartition(".")[0]) if m in known), node.lineno


def room(name: str) -> str:
    return "cli" if name in BELONGS_TO_CLI else name.split(".")[1]


KNOWN = modules()
EDGES = {
    (name, target, line)
    for name, path in KNOWN.items()
    if name != "stzoo"  # which names the public classes and functions, and imports each when it is first asked for
    for target, line in imported(name, path, KNOWN)
    if target != "stzoo"
}


def test_every_file_is_in_a_room() -> None:
    assert {room(name) for name in KNOWN if name != "stzoo"} == set(ROOMS)


def test_no_room_imports_from_one_below_it() -> None:
    height = {name: number for number, name in enumerate(ROOMS)}
    wrong = [
        f"{KNOWN[name].relative_to(PACKAGE.parent)}:{line} imports {target}"
        for name, target, line in sorted(EDGES)
        if height[room(target)] > height[room(name)]
    ]
    assert wrong == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph: dict[str, set[str]] = {}
    for name, target, _ in EDGES:
        graph.setdefault(name, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_statements_are_found(tmp_path: Path) -> None:
    """Wherever they stand, and however they are written."""
    path = tmp_path / "file.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nimport stzoo.spec\nfrom stzoo import frames as f\nfrom .cache import clear\n"
        "if TYPE_CHECKING:\n    from stzoo.models.tau import Tau\ndef g():\n    from ..train import loop\n"
    )
    found = [target for target, _ in imported("stzoo.hub.file", path, KNOWN)]
    assert sorted(found) == ["stzoo.frames", "stzoo.hub.cache", "stzoo.models.tau", "stzoo.spec", "stzoo.train.loop"]


def test_a_command_line_is_read_without_torch() -> None:
    code = (
        "import sys, stzoo; from stzoo.cli import main\n"
        "for line in (['list'], ['--help'], ['train', '--help'], ['catalog', 'add', '--help'], ['plot', '--help']):\n"
        "    try: main(line)\n"
        "    except SystemExit: pass\n"
        "print({'torch', 'numpy', 'matplotlib'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.endswith("set()\n")


def test_a_model_is_built_without_the_files_of_other_architectures() -> None:
    code = (
        "import sys, stzoo; stzoo.create('tctn-mmnist')\n"
        "print([name for name in ('tctn', 'crevnet', 'prednet', 'vqvae') if f'stzoo.models.{name}' in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out == "['tctn']\n"
