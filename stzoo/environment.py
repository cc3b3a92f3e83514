"""What stzoo reads from the environment, beside what huggingface_hub and requests read (HF_HOME, HF_TOKEN, proxies)."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """$STZOO_HOME, by default ~/.cache/stzoo.

    Downloaded weights are in `weights`, decoded videos in `frames`, what was compiled for training in `kernels`.
    """
    return Path(os.environ.get("STZOO_HOME") or Path.home() / ".cache" / "stzoo").expanduser()


def offline(asked: bool | None = None) -> bool:
    """What was asked for; where nothing was, whether STZOO_OFFLINE or HF_HUB_OFFLINE is on."""
    if asked is not None:
        return asked
    return any(
        os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in ("STZOO_OFFLINE", "HF_HUB_OFFLINE")
    )


def mirrors() -> list[str]:
    """The addresses in STZOO_MIRRORS, separated by white space, without the slash at the end."""
    return [base.rstrip("/") for base in os.environ.get("STZOO_MIRRORS", "").split()]
