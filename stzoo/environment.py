"""The environment variables that stzoo reads. huggingface_hub and requests read others (HF_HOME, HF_TOKEN, proxies)."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder of everything that stzoo keeps on this machine: $STZOO_HOME, by default ~/.cache/stzoo.

    Downloaded weights are in its folder `weights`, converted checkpoints of others in `published`, the sha256 sums of
    their files in `pins`, decoded videos in `frames`, and code that was compiled for training in `kernels`.
    """
    return Path(os.environ.get("STZOO_HOME") or Path.home() / ".cache" / "stzoo").expanduser()


def offline(asked: bool | None = None) -> bool:
    """Whether the network must not be used: as `asked`, or if that is None, as STZOO_OFFLINE or HF_HUB_OFFLINE says.

    A variable is on if it is 1, true, yes or on, in small letters or capitals.
    """
    if asked is not None:
        return asked
    return any(
        os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in ("STZOO_OFFLINE", "HF_HUB_OFFLINE")
    )


def mirrors() -> list[str]:
    """The addresses of mirrors of the weights: those in STZOO_MIRRORS, which white space separates.

    A slash at the end of an address is left out.
    """
    return [base.rstrip("/") for base in os.environ.get("STZOO_MIRRORS", "").split()]
