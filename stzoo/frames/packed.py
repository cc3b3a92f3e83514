"""How much a packed block unpacks to, found out before memory is taken for it.

The libraries that unpack the chunks of HDF5 and Zarr take as much memory as a chunk asks for, whatever its description
says: a megabyte of packed zeros becomes a gigabyte. Most blocks are too small for that and are not looked at here.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Literal

HARMLESS = 2**25  # bytes that any block may unpack to
_PIECE = 2**20
_RATIOS: Mapping[str, int] = MappingProxyType(  # how many times its size a block unpacks to at most, roughly
    {
        "deflate": 1032, "zlib": 1032, "gzip": 1032, "lz4": 255, "lzma": 2**13, "zstd": 2**15, "blosc": 2**15,
        "szip": 2**15, "bz2": 2**20, "hdf5-lz4": 255,
    }
)  # fmt: skip
_STATED: Mapping[str, tuple[int, int, Literal["little", "big"]]] = MappingProxyType(
    {"blosc": (4, 8, "little"), "lz4": (0, 4, "little"), "szip": (0, 4, "little"), "hdf5-lz4": (0, 8, "big")}
)  # where a block states what it unpacks to: first byte, the one after the last, their order
_ZSTD_BLOCK = 2**17  # bytes that one block of zstd unpacks to at most


def may_grow(packing: str, size: int, most: int) -> bool:
    """Whether a block of `size` bytes could unpack to more than `most` bytes, and to more than is harmless."""
    return size * _RATIOS.get(packing, 0) > max(most, HARMLESS)


def check_block(packing: str, block: bytes, most: int) -> None:
    """Look into a block, without keeping what it unpacks to.

    Args:
        packing: how it is packed, such as "gzip". Blocks packed in a way that is not known here are not looked into.
        block: the packed bytes.
        most: how many bytes it may unpack to.

    Raises:
        ValueError: it unpacks to more. A damaged block is not reported; the library that unpacks it does that.
    """
    if not may_grow(packing, len(block), most):
        return
    if packing in _STATED:
        start, end, order = _STATED[packing]
        unpacked = int.from_bytes(block[start:end], order)
    elif packing == "zstd":
        unpacked = _zstd_size(block)
    else:
        unpacked = _unpacked_size(packing, block, most)
    if unpacked > most:
        raise ValueError(f"a chunk unpacks to more than the {most:,} bytes that its description states")


def _unpacked_size(packing: str, block: bytes, most: int) -> int:
    """How many bytes a block unpacks to; counting ends above `most`."""
    total = 0
    with suppress(OSError, EOFError, zlib.error, lzma.LZMAError):
        if packing in ("deflate", "zlib"):
            unpacker, rest = zlib.decompressobj(), block
            while rest and total <= most:
                total += len(unpacker.decompress(rest, _PIECE))
                rest = unpacker.unconsumed_tail
            return total
        opened: Mapping[str, Any] = {"gzip": gzip.open, "bz2": bz2.open, "lzma": lzma.open}
        stream = opened[packing](io.BytesIO(block))
        while total <= most and (piece := stream.read(_PIECE)):
            total += len(piece)
    return total


def _zstd_size(block: bytes) -> int:
    """How many bytes the first frame of zstd unpacks to: what it states, or else an estimate from its blocks.

    The estimate is an eighth of the most that the blocks can hold, because writers that state no size may fill them to
    any degree. So such a chunk may unpack to eight times what its description states.
    """
    if block[:4] != b"\x28\xb5\x2f\xfd":
        return 0  # damaged
    flags = block[4]
    single = flags >> 5 & 1
    at = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[flags >> 6]
    if length:
        return int.from_bytes(block[at : at + length], "little") + 256 * (length == 2)
    total = 0
    while at + 3 <= len(block):
        header = int.from_bytes(block[at : at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        total += size if kind < 2 else _ZSTD_BLOCK  # kinds 0 and 1 are unpacked bytes, and one byte repeated
        at += 3 + (1 if kind == 1 else size)
        if last:
            break
    return total // 8
