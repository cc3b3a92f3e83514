"""What docs/extending.md tells to edit is edited in a copy of the package, and its commands are run there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import extended
from docs.pages import REPOSITORY, blocks, command_lines, text_of

PAGE = REPOSITORY / "docs" / "extending.md"


def test_the_edits_of_the_page_work(tmp_path: Path) -> None:
    copy, work = tmp_path / "copy", tmp_path / "work"
    work.mkdir()
    extended.edited_copy(text_of(PAGE), copy)
    python = [block for block in blocks(PAGE, "python") if "needs" not in block.marks]
    commands = [c for b in blocks(PAGE, "bash") if b.marks.get("needs") == "edits" for c in command_lines(b.text)]
    code = "\n".join(f"exec({block.text!r})" for block in python)  # makes the folders that the commands read
    code += f"\n\nfrom stzoo.cli import main\nfor command in {commands}:\n    assert main(command) == 0\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    headers = re.findall(r".* on waves-10-10: 11 sequences.*\n(.*)", done.stdout, re.M)
    assert len(headers) == len(commands) + 1 == 3
    assert ["bias" in header for header in headers] == [False, False, True]
    assert re.search(r"\bbias\b.*persist\. bias", headers[2])
