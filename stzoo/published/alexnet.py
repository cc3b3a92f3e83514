"""AlexNet's five convolutions, with which LPIPS sees frames: from PyTorch's own address, kept as safetensors.

torchvision calls its file by the first eight digits of its sha256. A download must have them, and the sha256 of the
first one is pinned, as that of every published checkpoint is (`stzoo.published.trust`). The file holds 61 million
parameters, most of them in layers that LPIPS does not use; the 2.5 million that it uses are kept.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from stzoo import environment
from stzoo.convert.checkpoint import named_tensors
from stzoo.convert.torch_file import open_torch_file
from stzoo.errors import (
    DownloadError,
    IntegrityError,
    MemoryNeededError,
    OfflineError,
    SpecError,
    WeightsError,
)
from stzoo.files import make_way, write_atomically
from stzoo.hashing import open_regular
from stzoo.hub.sources import MAX_CONFIG, listed
from stzoo.published.answers import unlike_a_checkpoint
from stzoo.published.obtaining import fetched, kept_or_made
from stzoo.published.trust import Pin, pin_file, write_pin
from stzoo.tensorfile import TensorFile, packed, read

ADDRESS = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
CONVOLUTIONS = MappingProxyType(  # number in torchvision's `features` -> channels in, channels out, width of a kernel
    {0: (3, 64, 11), 3: (64, 192, 5), 6: (192, 384, 3), 8: (384, 256, 3), 10: (256, 256, 3)}
)


def convolutions(*, sha256: str | None = None, offline: bool | None = None, progress: bool = True) -> TensorFile:
    """The weights and biases of the convolutions, "features.0.weight" to "features.10.bias", in float32.

    The first call downloads torchvision's file of 244 MB, from PyTorch's address or from the mirrors in STZOO_MIRRORS,
    and keeps 10 MB in the folder `published` below $STZOO_HOME; later ones open no socket.

    Args:
        sha256: that of torchvision's file, if you know it.
        offline: True opens no socket; None follows STZOO_OFFLINE and HF_HUB_OFFLINE.
        progress: show a bar while the file is downloaded.

    Raises:
        OfflineError: they are not on this machine, and the network is off.
        IntegrityError: what came is not the file that is known.
        DownloadError: no address has the file, or it cannot be kept.
        WeightsError: what came holds no such tensors. SpecError: `sha256` is no sha256.
    """
    file = environment.home() / "published" / f"{_name()}.safetensors"

    def check_allowed() -> None:
        if environment.offline(offline):
            raise OfflineError(
                "LPIPS needs the weights of AlexNet, which are not on this machine, or not whole, and the network is "
                f"off; allow it once: they come from {ADDRESS}. {_by_hand()}"
            )

    return kept_or_made(
        _name(), "the weights of AlexNet", file, sha256,
        kept=partial(_kept, file), check_allowed=check_allowed, made=partial(_made, file, progress),
    )  # fmt: skip


def _name() -> str:
    return ADDRESS.rpartition("/")[2].removesuffix(".pth")


def _by_hand() -> str:
    """What to do where the file cannot be downloaded, in sentences."""
    kept = environment.home() / "published" / _name()
    return (
        f"Or copy {kept}.safetensors and {kept}.json from a machine that has them; name a mirror of the file {_name()}"
        ".pth in STZOO_MIRRORS; or name a file with all weights of LPIPS in STZOO_LPIPS (docs/training.md)"
    )


def _kept(file: Path, pin: Pin | None, expected: str | None) -> TensorFile | None:
    """The kept file, if it is there, whole, and made of the expected one.

    A pin that was lost is written again from what stands beside the file.
    """
    try:
        with open_regular(file.with_suffix(".json")) as (beside, _):
            note = json.loads(beside.read(MAX_CONFIG) or b"")
        own, origin = note["sha256"], Pin(url=note["url"], size=note["size"], sha256=note["origin"])
        if origin.sha256 != (expected or origin.sha256) or not file.is_file():
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SpecError):
        return None
    if pin is None:
        with suppress(WeightsError):  # a folder that this user may only read
            write_pin(_name(), origin)
    try:
        found = read(file)
    except WeightsError:
        found = None
    if found is None or found.sha256 != own:
        warnings.warn(f"{file} is damaged and is made anew", stacklevel=6)
        return None
    return found


def _made(file: Path, progress: bool, pin: Pin | None, expected: str | None) -> TensorFile:
    """Download torchvision's file from the first address that has the right one, and keep its convolutions."""

    def read(came_as: Path, came: Pin) -> dict[str, Tensor]:
        _check_digits(came)
        return _read(came_as, came.url)

    with fetched(
        _name(), ADDRESS, file.parent, expected, progress=progress, read=read, failure=partial(_failure, file, pin)
    ) as (tensors, came):  # fmt: skip
        if pin is None:
            write_pin(_name(), came)
        return _keep(file, tensors, came)


def _failure(file: Path, pin: Pin | None, tried: list[tuple[str, Exception]]) -> Exception:
    """The error that says what each address had. Its kind is that of the first file that was a wrong one."""
    said, errors = listed(tried), [error for _, error in tried]
    wrong = next((e for e in errors if isinstance(e, IntegrityError)), None) or next(
        (e for e in errors if not isinstance(e, DownloadError)), errors[0]
    )
    kept = file.with_suffix(".json")  # from which a lost pin is written again
    trusted = f" If you trust a new file of the publisher, remove {pin_file(_name())} and {kept}." if pin else ""
    return type(wrong)(f"no address has the weights of AlexNet. Tried, in order: {said}.{trusted} {_by_hand()}")


def _check_digits(came: Pin) -> None:
    """Raises `IntegrityError` if the sha256 of a file is not the one that its name states the beginning of."""
    digits = _name().rpartition("-")[2]
    if not came.sha256.startswith(digits):
        raise IntegrityError(
            f"{came.url} has sha256 {came.sha256}, which does not begin with {digits}; the download was discarded"
        )


def _read(file: Path, url: str) -> dict[str, Tensor]:
    """The tensors of the convolutions. Raises `WeightsError` with the address in place of the file, which will be gone.

    Nothing of the pickle is run, see `stzoo.convert.torch_file`.
    """
    wrong = unlike_a_checkpoint(file)
    if wrong is not None:
        raise WeightsError(f"{url} sent {wrong}")
    shapes: dict[str, tuple[int, ...]] = {f"features.{n}.weight": (o, i, k, k) for n, (i, o, k) in CONVOLUTIONS.items()}
    shapes |= {f"features.{n}.bias": (o,) for n, (_, o, _) in CONVOLUTIONS.items()}
    try:
        with open_torch_file(file) as opened:
            stored = named_tensors(opened, lambda names: shapes.keys() <= set(names))
            for name, shape in shapes.items():
                there = stored[name].shape if name in stored else None
                if there != shape:
                    raise WeightsError(f"{file} is no AlexNet: {name} should be {shape}, and is {there}")
                if stored[name].dtype != torch.float32:
                    raise WeightsError(f"{file}: {name} should be in float32, and is in {stored[name].dtype}")
            found = {name: opened.tensor(stored[name]).contiguous() for name in shapes}
    except (WeightsError, MemoryNeededError) as error:
        raise type(error)(str(error).replace(str(file), url)) from None
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{url}: {name} holds values that are not finite")
    return found


def _keep(file: Path, tensors: dict[str, Tensor], origin: Pin) -> TensorFile:
    """Write the convolutions, and beside them the sha256 of this file, and what torchvision's was."""
    for path in (file, file.with_suffix(".json")):
        make_way(path)
    metadata = {"origin": ADDRESS, "license": "BSD-3-Clause"}
    content, digest = packed(tensors, metadata), hashlib.sha256()
    for piece in content:
        digest.update(piece)
    write_atomically(file, *content)
    note = {"sha256": digest.hexdigest(), "origin": origin.sha256, "url": origin.url, "size": origin.size}
    write_atomically(file.with_suffix(".json"), json.dumps(note).encode())
    return TensorFile(metadata, tensors, digest.hexdigest(), borrowed=False)
