"""docs/extending.md, executed: its edits are made in a copy of the package, and its code is run with that copy."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from fences import FENCE, Block, blocks

PACKAGE = Path(__file__).parents[2] / "stzoo"
HEAD = """---
file_format: mystnb
kernelspec:
  name: python3
---

"""
SAYS = "The code of this page was run when the page was built, in a copy of the package in which the edits were made.\n"
BEGIN = """
```{{code-cell}} ipython3
:tags: [remove-cell]
import os, sys

sys.path.insert(0, {copy!r})
os.environ["PYTHONPATH"] = {copy!r}
```
"""
ARCHITECTURE = "persistence_plus"  # the file of the page that belongs to a package of its own


def write(page: Path, copy: Path) -> None:
    """Makes of the page one whose code runs, in `copy`, a folder that does not exist yet."""
    text = page.read_text("utf-8")
    edited_copy(text, copy)
    title, rest = text.split("\n", 1)
    begin = BEGIN.format(copy=str(copy))
    page.write_text(f"{HEAD}{title}\n\n{SAYS}{begin}{FENCE.sub(_cell, rest)}", "utf-8")


def edited_copy(page: str, copy: Path) -> None:
    """A copy of the package with the files and the edits of the page, and the package of its architecture installed.

    Raises:
        ValueError: a file of the page is there already, or what it tells to edit does not stand in its file once.
    """
    shutil.copytree(PACKAGE, copy / PACKAGE.name, ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    shutil.copy(PACKAGE.parent / "weights_manifest.json", copy)
    python = list(blocks(page, "python"))
    for block in python:
        if "file" in block.marks:
            new = copy / block.marks["file"]
            if new.exists():
                raise ValueError(f"{block.marks['file']} is a file of stzoo already; the page adds it")
            new.write_text(block.text, "utf-8")
    for block in blocks(page, "diff"):
        edit(copy, block.text)
    (copy / f"{ARCHITECTURE}.py").write_text(next(b.text for b in python if "ARCHITECTURE = " in b.text), "utf-8")
    info = copy / f"{ARCHITECTURE}-1.0.dist-info"  # what pip leaves of a package with that entry point
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {ARCHITECTURE}\nVersion: 1.0\n", "utf-8")
    points = next(b.text for b in blocks(page, "toml")).replace("project.entry-points.", "").replace('"', "")
    (info / "entry_points.txt").write_text(points, "utf-8")


def edit(root: Path, diff: str) -> None:
    """Apply one diff without line numbers. Raises `ValueError` unless its old lines stand in the file once."""
    head, *lines = diff.splitlines()
    path = root / head.removeprefix("--- ")
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] in ("", " ", sign)) for sign in "-+")
    text = path.read_text("utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{path.relative_to(root)} does not hold once:\n{old}")
    path.write_text(text.replace(old, new), "utf-8")


def _cell(found: re.Match[str]) -> str:
    """A cell in place of a block that can be run; any other block as it is."""
    block = Block.of(found)
    if block.language == "python" and block.marks.get("needs", "edits") == "edits":
        return f"```{{code-cell}} ipython3\n{block.text}```"
    if block.language == "bash" and block.marks.get("needs") == "edits":
        lines = "".join(f"!{line}\n" for line in block.text.splitlines())
        return f"```{{code-cell}} ipython3\n{lines}```"
    return found[0]
