"""A file to download, and the names that the tests of this folder have in common."""

import hashlib
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hub.server import LoopbackMirror

from stzoo.download import Patience, download, part_of
from stzoo.forecaster import Forecaster

CONTENT = random.Random(0).randbytes(300_001)
SIZE, SHA256 = len(CONTENT), hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=4, backoff=0.01, connect=20, read=20)
WEIGHTS = "/objects/*"  # where a hub sends those who ask for weights

Load = Callable[..., Forecaster]


@dataclass
class Place:
    """CONTENT on a mirror, and where it is to go."""

    mirror: LoopbackMirror
    url: str
    target: Path

    @property
    def part(self) -> Path:
        return part_of(self.target)

    def get(self, patience: Patience = QUICK, url: str | None = None) -> None:
        download(self.url if url is None else url, self.target, SIZE, SHA256, patience, progress=False)


def sha256_of(files: dict[str, bytes]) -> str:
    """That of a repository's weights."""
    return hashlib.sha256(files["model.safetensors"]).hexdigest()


def trusted() -> dict[str, str]:
    """For children, whose environment is that of the process they were forked from."""
    return {"REQUESTS_CA_BUNDLE": os.environ["REQUESTS_CA_BUNDLE"]}
