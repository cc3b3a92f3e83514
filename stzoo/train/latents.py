"""The latents of a fixed number of clips, encoded once and kept on disk, since a frozen codec always gives the same."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stzoo.errors import TrainingError
from stzoo.files import make_way, write_atomically

# start, stop -> the latents of the past (n, T, dim, h, w) and the future (n, T', dim, h, w) of clips start to stop - 1
Encode = Callable[[int, int], tuple[Tensor, Tensor]]

SHARD = 8  # clips in a file


class CachedLatents:
    """The latents of the first `count` clips again and again: clip i is clip i % count.

    Each file holds the latents of `SHARD` clips, (n, T + T', dim, h, w) in float16, and is written whole or not at all.
    The name of the folder that holds the files is made from everything that the latents depend on, so no others are
    taken for them.

    Args:
        folder: where the caches of a run are, each in a folder of its own.
        count: the number of clips.
        encode: makes the latents that no file holds yet.
        identity: what the latents depend on, in types that JSON has: codec, spec, precision, clips.

    Raises:
        TrainingError: the disk has no room for all of them. This is known before the first file is written.
    """

    def __init__(self, folder: Path, count: int, encode: Encode, identity: dict[str, Any]):
        self.count, self.encode = count, encode
        past, future = encode(0, 1)
        self.frames_in = past.shape[1]
        shape = [count, past.shape[1] + future.shape[1], *past.shape[2:]]
        depends_on = json.dumps(
            identity | {"shape": shape, "frames_in": self.frames_in, "shard": SHARD}, sort_keys=True
        )
        self.folder = folder / hashlib.sha256(depends_on.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        there = sum(file.stat().st_size for file in self.folder.glob("*.npy"))
        needed, free = 2 * int(np.prod(shape, dtype=np.int64)) - there, shutil.disk_usage(folder).free
        if needed > free:
            raise TrainingError(
                f"the latents of {count:,} clips take {needed / 1e9:.1f} GB more, and the disk of {folder} has "
                f"{free / 1e9:.1f} GB left; lower recipe.cached_clips, or set it to 0"
            )

    def clips(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Latents of clips start to stop - 1: past (n, T, dim, h, w) and future (n, T', dim, h, w), float32 on the CPU.

        Raises:
            TrainingError: a file is damaged, or a latent is too large for float16.
        """
        which = [i % self.count for i in range(start, stop)]
        shards = {number: self._shard(number) for number in {i // SHARD for i in which}}
        latents = torch.from_numpy(np.stack([shards[i // SHARD][i % SHARD] for i in which])).float()
        return latents[:, : self.frames_in], latents[:, self.frames_in :]

    def _shard(self, number: int) -> np.ndarray:
        """File `number`, which begins with clip number * SHARD, as an array that is read from disk where it is indexed.

        It is written first if it does not exist.
        """
        file = self.folder / f"{number:06d}.npy"
        make_way(file)
        if not file.is_file():
            first = number * SHARD
            latents = torch.cat(self.encode(first, min(first + SHARD, self.count)), 1).half().cpu()
            if not latents.isfinite().all():
                raise TrainingError("a latent does not fit into float16; set recipe.cached_clips to 0")
            content = io.BytesIO()
            np.save(content, latents.numpy())
            write_atomically(file, content.getvalue())
        try:
            return np.load(file, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise TrainingError(f"{file} is damaged, remove it: {error}") from error
