"""Where, by what and in which precision a model runs: what stzoo knows of these, and what this machine has.

Importing this module does not import torch, so that the command line can list the choices.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from stzoo.errors import SpecError
from stzoo.spec import shown

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
PrecisionChoice = Literal["float32", "bfloat16", "auto"]  # "auto" is bfloat16 if this machine computes faster in it
PRECISION_CHOICES: tuple[str, ...] = get_args(PrecisionChoice)
Backend = Literal["torch", "onnxruntime"]  # what computes forecasts
BACKENDS: tuple[str, ...] = get_args(Backend)
BACKEND_CHOICES = (*BACKENDS, "auto")  # "auto" is the faster one, by a measurement
Device = Literal["cpu", "cuda"]  # the kinds of devices that speeds, trainings and archives are made on
DEVICES: tuple[str, ...] = get_args(Device)
_ACCELERATORS = ("cuda", "mps", "xpu")  # the kinds that are looked for where an error lists the devices of this machine


def check_precision(precision: str, choices: tuple[str, ...] = PRECISION_CHOICES) -> None:
    """Raises `SpecError` if `precision` is not one of `choices`."""
    if precision not in choices:
        raise SpecError(f"precision is {shown(precision)}; it may be {', '.join(choices)}")


def check_backend(backend: str, choices: tuple[str, ...] = BACKEND_CHOICES) -> None:
    """Raises `SpecError` if `backend` is not one of `choices`."""
    if backend not in choices:
        raise SpecError(f"backend is {shown(backend)}; it may be {', '.join(choices)}")


def default_device() -> str:
    """Returns "cuda" if torch finds a GPU, and "cpu" otherwise."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str | torch.device) -> torch.device:
    """The torch device with that name, such as "cpu", "cuda", "cuda:1", "mps" or "xpu".

    Raises:
        SpecError: torch does not know the device, or does not find it on this machine. The message lists the devices
            of this machine.
    """
    import torch

    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise SpecError(
            f"device is {shown(device)}; it may be {' or '.join(devices_here())} on this machine"
        ) from error
    if found.type != "cpu" and (found.index or 0) >= _count(found.type):
        what = "GPU" if found.type == "cuda" else "device"
        raise SpecError(f"device is {found}; torch finds no such {what} here, so use {' or '.join(devices_here())}")
    return found


def devices_here() -> list[str]:
    """The devices that torch finds on this machine, such as ["cpu", "cuda:0", "cuda:1"]. The CPU is always there."""
    return ["cpu", *(f"{kind}:{number}" for kind in _ACCELERATORS for number in range(_count(kind)))]


def _count(kind: str) -> int:
    """How many devices of a kind, such as "cuda", torch finds here; 0 if torch cannot use that kind at all."""
    import torch

    try:
        return int(torch.get_device_module(kind).device_count())
    except (RuntimeError, AttributeError):  # no module of torch's drives such devices
        return 0


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets of the first processor, such as "avx512_bf16". Empty on systems other than Linux."""
    return frozenset(_cpuinfo("flags", "Features").split())


@cache
def is_intel() -> bool:
    """Was the first processor made by Intel?"""
    return "GenuineIntel" in (_cpuinfo("vendor_id") or platform.processor())  # the latter is for Windows


def mkl_keeps_up() -> bool:
    """Does MKL multiply matrices in float32 here with instructions as wide as those of oneDNN's convolutions?

    MKL uses AVX-512 on Intel's processors alone. On others without AVX-512, such as AMD's before Zen 4, both use AVX2.
    """
    return is_intel() or ("avx2" in cpu_flags() and "avx512f" not in cpu_flags())


def _cpuinfo(*names: str) -> str:
    """What Linux says of the first processor under the first of these names that it knows; "" if it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")
