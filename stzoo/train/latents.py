"""Latents of a fixed number of clips, encoded once and kept on disk: a codec that never changes need not run again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stzoo.errors import TrainingError

Encode = Callable[[int, int], tuple[Tensor, Tensor]]  # clips start..stop-1 -> latents of their past and future


class CachedLatents:
    """The first `count` clips over and over: clip i is clip i % count.

    `latents.npy` holds (count, T + T', dim, h, w) in float16, `encoded.npy` which clips are there. A clip is marked
    after it has been written, so a run killed in between encodes it again.

    Raises:
        TrainingError: the disk has no room for all of them, which is known before the first is encoded.
    """

    def __init__(self, folder: Path, count: int, encode: Encode):
        self.count, self.encode = count, encode
        past, future = encode(0, 1)
        self.frames_in = past.shape[1]
        shape = (count, past.shape[1] + future.shape[1], *past.shape[2:])
        folder.mkdir(parents=True, exist_ok=True)
        files = folder / "latents.npy", folder / "encoded.npy"
        if not all(file.is_file() for file in files):
            needed, free = 2 * int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(folder).free
            if needed > free:
                raise TrainingError(
                    f"the latents of {count:,} clips take {needed / 1e9:.1f} GB, and {folder} has "
                    f"{free / 1e9:.1f} GB left; lower recipe.cached_clips, or set it to 0"
                )
            for file, kind, size in zip(files, (np.float16, np.bool_), (shape, (count,)), strict=True):
                np.lib.format.open_memmap(file, "w+", kind, size).flush()
        self.latents, self.encoded = (np.lib.format.open_memmap(file, "r+") for file in files)

    def clips(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Latents of the past and the future of clips start..stop-1, float32 on the CPU."""
        which = np.arange(start, stop) % self.count
        for i in which[~self.encoded[which]].tolist():
            self.latents[i] = torch.cat(self.encode(i, i + 1), 1)[0].half().cpu().numpy()
            self.encoded[i] = True
        latents = torch.from_numpy(self.latents[which]).float()
        return latents[:, : self.frames_in], latents[:, self.frames_in :]
