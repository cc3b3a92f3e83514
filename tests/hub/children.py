"""What the tests run in processes of their own. Each takes the variables of the environment it needs."""

import os
import resource
import signal
import sys
import time
from pathlib import Path

from stzoo.download import Patience, download, lock
from stzoo.errors import DownloadError
from stzoo.hub import resolve


def fetch(environment: dict[str, str], url: str, target: Path, size: int, sha256: str) -> None:
    os.environ.update(environment)
    download(url, target, size, sha256, Patience(backoff=0.01), progress=False)


def fetch_with_a_limit(environment: dict[str, str], url: str, target: Path, size: int, sha256: str, limit: int) -> None:
    """Files of this process stop growing at `limit` bytes, as they would on a full disk. Exits with 3 for the error."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then write fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        fetch(environment, url, target, size, sha256)
    except DownloadError as error:
        sys.exit(3 if "cannot keep" in str(error) else 4)


def hold(target: Path) -> None:
    """Take the lock of `target` and keep it, until killed."""
    with lock(target):
        (target.parent / "held").touch()
        time.sleep(600)


def find(source: str, cache: Path, sha256: str) -> None:
    """Fails unless `source` resolves to a file with this sha256."""
    assert resolve(source, cache_dir=cache, progress=False).sha256 == sha256
