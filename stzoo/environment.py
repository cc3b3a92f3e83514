"""The environment variables that stzoo reads. huggingface_hub and requests read others (HF_HOME, HF_TOKEN, proxies)."""

from __future__ import annotations

import os
from pathlib import Path

from stzoo.errors import NoHomeError, SpecError


def home() -> Path:
    """The folder of everything that stzoo keeps on this machine: $STZOO_HOME, by default ~/.cache/stzoo.

    Downloaded weights are in its folder `weights`, converted checkpoints of others in `published`, the sha256 sums of
    their files in `pins`, decoded videos in `frames`, code that was compiled for training in `kernels`, that of
    torch.compile in `compiled`, and the graphs that ONNX Runtime computes in `graphs`.

    Raises:
        NoHomeError: the user has no home folder, as in some containers, and STZOO_HOME names no folder either.
    """
    try:
        return Path(os.environ.get("STZOO_HOME") or "~/.cache/stzoo").expanduser()
    except RuntimeError as error:
        raise NoHomeError("there is no home folder to keep files in; set STZOO_HOME to a folder") from error


def made(folder: Path) -> Path:
    """The folder, which lies below `home()`, made if it does not exist.

    Raises:
        NoHomeError: it cannot be made, because the home folder does not exist or belongs to somebody else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoHomeError(f"{folder} cannot be made ({error.strerror}); set STZOO_HOME to a folder of yours") from error
    return folder


def lies_here() -> bool:
    """Whether the package stzoo itself lies in the current folder, as in a checkout that is not installed.

    Elsewhere no process that stzoo starts may run code of the current folder: clips of a stranger may lie there, and
    files called json.py or stzoo.py beside them. So such processes get `-P`, PYTHONSAFEPATH or the like.
    """
    try:
        return Path(__file__).resolve().parent.parent == Path.cwd().resolve()
    except FileNotFoundError:  # the current folder was removed
        return False


def offline(asked: bool | None = None) -> bool:
    """Whether the network must not be used: as `asked`, or if that is None, as STZOO_OFFLINE or HF_HUB_OFFLINE says.

    A variable is on if it is 1, true, yes or on, in small letters or capitals.
    """
    if asked is not None:
        return asked
    return any(
        os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in ("STZOO_OFFLINE", "HF_HUB_OFFLINE")
    )


def lpips() -> Path | None:
    """The file with the weights of LPIPS, see `stzoo.metrics.perceptual`: $STZOO_LPIPS; None if it is not set."""
    text = os.environ.get("STZOO_LPIPS")
    return Path(text) if text else None


def memory() -> float | None:
    """How much memory may be taken, in GB (10^9 bytes): $STZOO_MEMORY; None if it is not set, for all that is free.

    Raises:
        SpecError: it is not a positive number.
    """
    text = os.environ.get("STZOO_MEMORY")
    if not text:
        return None
    try:
        given = float(text)
    except ValueError:
        given = 0.0
    if not 0 < given < 1e9:
        raise SpecError(f"STZOO_MEMORY is {text[:40]!r}; it must be a positive number of GB, such as 16")
    return given


def mirrors() -> list[str]:
    """The addresses of mirrors of the weights: those in STZOO_MIRRORS, which white space separates.

    A slash at the end of an address is left out.
    """
    return [base.rstrip("/") for base in os.environ.get("STZOO_MIRRORS", "").split()]
