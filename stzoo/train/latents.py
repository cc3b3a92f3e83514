"""Latents of a fixed number of clips, encoded once and kept on disk: a codec that never changes need not run again."""

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
from stzoo.files import write_atomically

Encode = Callable[[int, int], tuple[Tensor, Tensor]]  # clips start..stop-1 -> latents of their past and future

SHARD = 8  # clips a file


class CachedLatents:
    """The first `count` clips over and over: clip i is clip i % count.

    A file holds the latents of `SHARD` clips, (n, T + T', dim, h, w) in float16, and is there whole or not at all. The
    files lie in a folder named after everything they depend on, so others are never mistaken for them.

    Args:
        folder: what the caches of a run lie in.
        encode: makes latents where a file is missing.
        identity: what the latents depend on, as JSON: codec, spec, precision, clips.

    Raises:
        TrainingError: the disk has no room for all of them (checked before the first is written), a file is damaged,
            or a latent does not fit into float16.
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
                f"the latents of {count:,} clips take {needed / 1e9:.1f} GB more, and {folder} has "
                f"{free / 1e9:.1f} GB left; lower recipe.cached_clips, or set it to 0"
            )

    def clips(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Latents of the past and the future of clips start..stop-1, float32 on the CPU."""
        which = [i % self.count for i in range(start, stop)]
        shards = {number: self._shard(number) for number in {i // SHARD for i in which}}
        latents = torch.from_numpy(np.stack([shards[i // SHARD][i % SHARD] for i in which])).float()
        return latents[:, : self.frames_in], latents[:, self.frames_in :]

    def _shard(self, number: int) -> np.ndarray:
        """The file of clips number * SHARD and on, written first where it is missing; read as it is indexed."""
        file = self.folder / f"{number:06d}.npy"
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
