"""The first thing a newcomer runs, with the packaged weights and drawn digits."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

import stzoo
from stzoo.cli import main
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.evaluate import evaluate

pytestmark = pytest.mark.skipif(not stzoo.list_models("tau-mmnist", pretrained=True), reason="no weights yet")


def test_demo_writes_a_gif_and_a_strip_and_beats_persistence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path)]) == 0
    words = capsys.readouterr().out.split()
    mse, persistence = float(words[1].rstrip(",")), float(words[3])
    assert mse < persistence / 2
    with Image.open(tmp_path / "stzoo-demo.gif") as gif:
        frames = [np.asarray(f.convert("L")) for f in ImageSequence.Iterator(gif)]
    assert len(frames) == 50
    half = frames[0].shape[1] // 2
    assert np.array_equal(frames[5][20:, 2:half], frames[5][20:, half + 1 : 2 * half - 1])  # both sides show the past
    with Image.open(tmp_path / "stzoo-demo.png") as strip:
        assert strip.height > 4 * 64


def test_three_lines() -> None:
    frames = MovingDigits(drawn_digits(), 0, 1).sequences(0, 1)[0].numpy()
    model = stzoo.load("tau-mmnist")
    future = model.predict(frames[:10])
    longer = model.rollout(frames[:10], steps=40)
    assert future.shape == (10, 64, 64)
    assert future.dtype == np.uint8
    assert longer.shape == (40, 64, 64)
    assert np.array_equal(longer[:10], future)


def test_ten_to_forty_stays_a_picture_of_digits() -> None:
    """Autoregression neither dies out nor blows up: ink stays within a factor of the truth's."""
    clip = MovingDigits(drawn_digits(), 3, 8, 10, 40).clips(0, 8)
    forecast = stzoo.load("tau-mmnist").rollout(clip.past, 40).float()
    ink = forecast.mean((2, 3, 4)) / clip.future.float().mean((2, 3, 4))
    assert 0.3 < ink[:, -1].mean() < 2


@pytest.mark.slow
def test_the_cards_figure_holds_on_the_real_test_digits(mnist: Path) -> None:
    """The first 256 of the protocol's 10,000 sequences; their own spread is a few units of MSE."""
    import dataclasses

    from stzoo.data.mmnist import protocol_set

    few = dataclasses.replace(protocol_set(mnist), count=256)
    report = evaluate(stzoo.load("tau-mmnist"), few, name="tau-mmnist", protocol="a part", progress=False)
    (card,) = stzoo.info("tau-mmnist").metrics
    assert report.total["mse"] == pytest.approx(card.mse, abs=6)
    assert report.persistence_total["mse"] == pytest.approx(card.persistence_mse, abs=20)
