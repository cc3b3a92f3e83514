"""How long it takes to read a 1080p video, against what PyAV alone takes to decode and resize it.

    python docs/experiments/reading.py                  # writes a video of 300 frames to a temporary folder
    python docs/experiments/reading.py --video FILE     # reads this one instead

Each round measures every way once, one after the other, so that what else the machine does touches all alike. Printed
are the medians of the seconds that passed and of the seconds of all processor cores, and of the ratios of each to that
of PyAV in the same round.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from stzoo import create
from stzoo.data import Reading
from stzoo.data.recordings import decode_once
from stzoo.frames import ReadingOptions, read
from stzoo.frames.video import read_video

WIDTH, HEIGHT, FRAMES = 1920, 1080, 300


def write_noise(path: Path) -> None:
    """A video of a grainy picture that moves, about as large as one from a phone."""
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 256, (135, 240, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "28"}
        for number in range(FRAMES):
            moved = np.roll(picture, (number, 3 * number), (0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode(None))


def pyav(path: Path, size: int, format: str) -> None:
    """Decode and resize every frame, with PyAV's threads and its own scaler."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            frame.reformat(size, size, format)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.video or Path(folder) / "video.mp4"
        if arguments.video is None:
            write_noise(path)
        model = create("tau-ut")
        spec, size = model.spec, model.spec.height
        reading = Reading(channels=spec.channels, height=size, width=size)
        caches = iter(range(10**6))

        def cached() -> None:
            os.environ["STZOO_HOME"] = str(Path(folder) / str(next(caches)))
            decode_once(path, reading, read_video)

        ways: dict[str, Callable[[], object]] = {
            "PyAV, decode and resize": lambda: pyav(path, size, "gray"),
            "the past of a forecast": lambda: read(path, spec, 4, ReadingOptions(resize=True)),
            "every frame, for training": cached,
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                began = (time.perf_counter(), time.process_time())
                way()
                taken[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    alone = next(iter(taken.values()))
    for name, rounds in taken.items():
        print(f"{name:<26}", end="")
        for kind, what in enumerate(("passed", "of processors")):
            ratio = statistics.median(ours[kind] / theirs[kind] for ours, theirs in zip(rounds, alone, strict=True))
            print(f"{statistics.median(r[kind] for r in rounds):8.2f} s {what}, {ratio:.2f} times PyAV", end="")
        print()


if __name__ == "__main__":
    main()
