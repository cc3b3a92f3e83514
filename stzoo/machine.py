"""What a model can run on and in: the devices and precisions that stzoo knows, and what this machine has of them.

Importing this costs no torch, so that the command line can list the choices.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from stzoo.errors import SpecError
from stzoo.spec import shown

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
PRECISION_CHOICES = (*PRECISIONS, "auto")  # "auto" is bfloat16 where the machine multiplies faster in it
DEVICES = ("cpu", "cuda")


def check_precision(precision: str, choices: tuple[str, ...] = PRECISION_CHOICES) -> None:
    """Raises `SpecError` where `precision` is none of `choices`."""
    if precision not in choices:
        raise SpecError(f"precision is {shown(precision)}; it may be {', '.join(choices)}")


def default_device() -> str:
    """ "cuda" where torch finds a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str | torch.device) -> torch.device:
    """The device of that name, such as "cpu", "cuda" or "cuda:1".

    Raises:
        SpecError: torch knows no such device, or this machine has no GPU that torch can use.
    """
    import torch

    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise SpecError(f"device is {shown(device)}; it may be {' or '.join(DEVICES)}") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise SpecError(f"device is {found}; torch finds {torch.cuda.device_count()} GPUs here, so use cpu")
    return found


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets that Linux lists of the first processor, such as "avx512_bf16"; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return frozenset()
    words = next((line.split(":")[1] for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(words.split())
