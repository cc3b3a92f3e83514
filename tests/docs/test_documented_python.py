"""Every Python block of the pages runs as it is written; those that cannot run here compile, and name what exists.

The blocks of one page run in order, in one namespace and an empty folder. A block that needs more than this package,
such as a dataset, has a comment before its fence: `<!-- needs: data -->`.
"""

import ast
from pathlib import Path
from typing import Any

import pytest
from docs.names import Names
from docs.pages import GENERATED, PAGES, WRITTEN, blocks, name_of

NEEDS = {"data", "network", "extra", "minutes", "edits"}  # edits: see test_extending_page.py


@pytest.mark.parametrize("page", [p for p in WRITTEN if blocks(p, "python")], ids=name_of)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        placed = "\n" * (block.line - 1) + block.text  # a traceback then names the page's own line
        code = compile(placed, str(page), "exec", dont_inherit=True)
        if "needs" not in block.marks:
            exec(code, namespace)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_the_blocks_of_a_page_name_what_exists(page: Path) -> None:
    names = Names({})
    for block in blocks(page, "python"):
        names.visit(ast.parse(block.text))


@pytest.mark.parametrize("wrong", ["stzoo.lode", "stzoo.load('x').predictt", "stzoo.load('x', deice='cpu')"])
def test_a_name_that_does_not_exist_is_found(wrong: str) -> None:
    with pytest.raises((AttributeError, TypeError, ImportError)):
        Names({}).visit(ast.parse(f"import stzoo\nx = {wrong}"))


def test_marks_say_what_a_block_needs() -> None:
    marks = [block.marks for page in PAGES for block in blocks(page, "python", "bash", "sh")]
    assert {mark["needs"] for mark in marks if "needs" in mark} <= NEEDS
    assert sum("needs" not in m for page in WRITTEN for m in [b.marks for b in blocks(page, "python")]) >= 8
    assert not any(block.marks for page in GENERATED for block in blocks(page, "python"))
