"""Writing that leaves nothing half-written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file or a folder to, under the same name.

    It takes the place of `path` where the block ends well; where it raises, `path` is as it was.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        partial = Path(folder) / path.name
        yield partial
        if partial.is_dir() and path.is_dir():
            path.rmdir()  # empty, or this raises
        os.replace(partial, path)
