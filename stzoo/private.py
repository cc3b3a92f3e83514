"""Folders that hold code which this program made and will run: nobody but their owner may write to them."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def private_folder(path: Path, variable: str) -> Path:
    """Create the folder `path` for this user alone, or make the existing one so; return it.

    What is in a folder that others could write to may be theirs, so it is removed.

    Args:
        path: the folder.
        variable: the environment variable that names another place for it; the error advises to set it.

    Raises:
        PermissionError: the folder belongs to another user, or its rights cannot be changed. OSError: `path` is no
            folder, or cannot be created.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not hasattr(os, "geteuid"):  # Windows, where the folders of a user are closed to others
        return path
    facts = path.stat()
    if facts.st_uid != os.geteuid():
        raise PermissionError(
            f"{path} belongs to another user, who could put code into it; set {variable} to a folder of your own"
        )
    if stat.S_IMODE(facts.st_mode) & 0o022:
        path.chmod(0o700)
        for item in path.iterdir():
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    return path
