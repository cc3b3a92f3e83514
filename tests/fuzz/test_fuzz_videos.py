from fractions import Fraction
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from fuzzing import cases, end_well, mutated

from stzoo.forecaster import Forecaster

av = pytest.importorskip("av", reason="the extra `video` is not installed")


def recorded(path: Path, codec: str, kind: str) -> bytes:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(6):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["mp4", "avi", "matroska", "mpeg"])
@cases(ordinary=75, nightly=2_500)
def test_a_damaged_video_is_forecast_or_refused(
    amount: hypothesis.settings, kind: str, forecaster: Forecaster, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"  # FFmpeg looks at what is inside
    codecs = ["mpeg1video"] if kind == "mpeg" else ["mpeg4", *(["libx264"] if "libx264" in av.codecs_available else [])]
    files = [recorded(path, codec, kind) for codec in codecs]

    def act(content: bytes) -> None:
        path.write_bytes(content)
        forecaster.predict(path, resize=True)

    end_well(amount, mutated(files), act)
