"""C++ -> a library in this process, compiled once and kept, and never loaded unless its bytes are the compiled ones.

A library is kept under a name that holds the sha256 of its bytes. They are read once, hashed, and loaded from memory
that belongs to this process: a file that is cut, swapped or planted is not loaded, and one that changes afterwards
changes nothing here.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stzoo.files import write_atomically
from stzoo.hashing import hashed, sha256_in_name
from stzoo.private import private_folder


def loaded(name: str, key: str, source: Path, flags: tuple[str, ...], folder: Path) -> ctypes.CDLL:
    """The library of `source`, from `folder`, or compiled by g++ if no right one is there.

    Args:
        name: what the library is called.
        key: tells this source, these flags and this kind of machine from all others: letters and digits.
        source: the C++ file.
        flags: of the compiler.
        folder: where libraries are kept. It becomes this user's alone.

    Raises:
        OSError: this is not Linux, there is no g++, or the folder cannot be used. RuntimeError: g++ refuses the source.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError("compiled code is loaded on Linux alone")
    private_folder(folder, "STZOO_HOME")
    for content in _kept(f"{name}-{key}", folder):
        with suppress(OSError):  # made on a machine with other libraries, which shares the folder
            return _from_memory(name, content)
    content = _compiled(source, flags)
    write_atomically(folder / f"{name}-{key}-{hashlib.sha256(content).hexdigest()}.so", content)
    return _from_memory(name, content)


def _kept(stem: str, folder: Path) -> Iterator[bytes]:
    """The content of each library that is what its name says; a wrong one is removed."""
    for file in sorted(folder.glob(f"{stem}*.so")):
        found = hashed(file)
        if found.content is not None and found.sha256 == sha256_in_name(file):
            yield bytes(found.content)
        else:
            file.unlink(missing_ok=True)


def _compiled(source: Path, flags: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="stzoo-") as folder:  # this user's alone
        built = Path(folder) / "library.so"
        command = ["g++", *flags, str(source.absolute()), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=folder)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-500:])
        return built.read_bytes()


def _from_memory(name: str, content: bytes) -> ctypes.CDLL:
    """Load a library from an anonymous file, which nobody else can change, and which cannot change any more.

    The file stays open as long as this process lives: the loader tells libraries apart by their paths, and this path
    must not come to mean another file.
    """
    import fcntl  # which, like `memfd_create`, not every system has

    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(content)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
