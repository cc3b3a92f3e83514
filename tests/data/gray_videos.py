"""Videos of flat gray frames, and what can be told of frames by their brightness."""

from pathlib import Path

import av
import numpy as np


def write_video(path: Path, grays: list[int], size: tuple[int, int] = (40, 32)) -> None:
    """One flat gray frame a value, width x height, in MPEG-4 as KTH and UT-Interaction are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", 4_000_000
        for gray in grays:
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), gray, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def brightness(frames: object) -> np.ndarray:
    """The mean of each frame of (..., C, H, W)."""
    return np.asarray(frames, np.float64).mean((-3, -2, -1))
