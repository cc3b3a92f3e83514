from pathlib import Path

import hypothesis
import numpy as np
import pytest
from fuzzing import cases, end_well, mutated, with_checksums
from PIL import Image, PngImagePlugin

from stzoo.forecaster import Forecaster
from stzoo.frames.images import write_images


def originals(folder: Path, suffix: str) -> list[bytes]:
    """Gray and coloured animations, one that stands still for a while, and a PNG with words in it."""
    rng = np.random.default_rng(0)
    files = []
    for shape in ((8, 8), (8, 8, 3)):
        images = [Image.fromarray(rng.integers(0, 256, shape, np.uint8)) for _ in range(4)]
        write_images(folder / f"a{suffix}", [*images, images[-1], images[-1]])
        files.append((folder / f"a{suffix}").read_bytes())
    if suffix == ".png":
        text = PngImagePlugin.PngInfo()
        text.add_text("duration", "soon")
        text.add_text("transparency", "x", zip=True)
        frames = [Image.new("P", (8, 8), i) for i in range(5)]
        frames[0].save(folder / "b.png", save_all=True, append_images=frames[1:], pnginfo=text)
        files.append((folder / "b.png").read_bytes())
    return files


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # Pillow's, on what is damaged a little
@cases(ordinary=150, nightly=5_000)
def test_a_damaged_animation_is_forecast_or_refused(
    amount: hypothesis.settings, suffix: str, forecaster: Forecaster, tmp_path: Path
) -> None:
    files = originals(tmp_path, suffix)

    def act(content: bytes) -> None:
        (tmp_path / f"a{suffix}").write_bytes(content)
        forecaster.predict(tmp_path / f"a{suffix}", resize=True)

    damaged = mutated(files)
    end_well(amount, damaged | damaged.map(with_checksums) if suffix == ".png" else damaged, act)
