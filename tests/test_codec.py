"""`load_codec`: what goes in comes back through the codebook, as the caller's own kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stzoo
from stzoo.codec import Codec
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import ForecastError, FramesError, NotPublishedError, SpecError


@pytest.fixture(scope="module")
def codec() -> Codec:
    return stzoo.load_codec("vqvae-mmnist")


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """(12, 64, 64) uint8: more frames than any forecaster's block."""
    return MovingDigits(drawn_digits(), 0, 1, 6, 6).sequences(0, 1)[0].numpy()


def test_packaged_weights_reconstruct_digits_they_never_saw(codec: Codec, clip: np.ndarray) -> None:
    """Drawn with a font. An empty frame has an error of 150 to 200; the frame before, of 100 or so."""
    back = codec.reconstruct(clip)
    assert (back.shape, back.dtype) == (clip.shape, clip.dtype)
    error = np.square((back.astype(float) - clip) / 255).sum((1, 2)).mean()
    assert error < 12
    assert np.square(clip / 255).sum((1, 2)).mean() > 10 * error


def test_encode_quantise_decode(codec: Codec, clip: np.ndarray) -> None:
    latents = codec.encode(clip)
    assert (latents.shape, latents.dtype) == ((1, 12, 64, 16, 16), torch.float32)
    quantised, codes = codec.quantise(latents)
    assert quantised.shape == latents.shape
    assert (codes.shape, codes.dtype) == ((1, 12, 16, 16), torch.int64)
    assert torch.equal(codec.quantise(quantised)[1], codes)  # a code is its own nearest
    painted = codec.decode(codes)
    assert (painted.shape, painted.dtype) == ((1, 12, 1, 64, 64), torch.float32)
    assert torch.equal(painted, codec.decode(quantised))
    assert painted.min() >= 0
    assert painted.max() <= 1
    rounded = (painted[0, :, 0] * 255).round().to(torch.uint8)
    assert np.array_equal(codec.reconstruct(clip), rounded.numpy())
    assert not latents.requires_grad
    assert not painted.requires_grad


def test_autocast_of_the_caller_changes_nothing(codec: Codec, clip: np.ndarray) -> None:
    latents, back = codec.encode(clip), codec.reconstruct(clip)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(clip), latents)
        assert np.array_equal(codec.reconstruct(clip), back)


def test_frames_are_looked_at_one_by_one(codec: Codec, clip: np.ndarray) -> None:
    whole = codec.encode(clip)
    for t in (0, 5):
        torch.testing.assert_close(codec.encode(clip[t : t + 1])[:, 0], whole[:, t], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_latents_of_any_float_dtype_are_decoded(codec: Codec, clip: np.ndarray, dtype: torch.dtype) -> None:
    latents = codec.encode(clip)
    painted = codec.decode(latents.to(dtype))
    assert painted.dtype == torch.float32
    torch.testing.assert_close(painted, codec.decode(latents), rtol=0, atol=0.01)


def test_more_frames_than_go_through_at_once(codec: Codec) -> None:
    many = MovingDigits(drawn_digits(), 1, 1, 40, 40).sequences(0, 1)[0]
    assert codec.encode(many).shape[1] == 80
    late = codec.reconstruct(many)[70:]  # beyond the first 64, each still in its own place
    assert (late.int() - codec.reconstruct(many[70:]).int()).abs().max() <= 2


def test_one_variable_of_several_is_read(codec: Codec, clip: np.ndarray) -> None:
    xr = pytest.importorskip("xarray")
    values = xr.DataArray(clip / np.float32(255), dims=("frame", "y", "x"))
    several = xr.Dataset({"a": values, "b": values * 0})
    assert torch.equal(codec.encode(several, variable="a", time="frame"), codec.encode(clip / np.float32(255)))
    assert codec.reconstruct(several, variable="a", time="frame").dims == ("frame", "y", "x")


def test_every_kind_comes_back(codec: Codec, clip: np.ndarray) -> None:
    wanted = codec.reconstruct(clip)
    tensor = codec.reconstruct(torch.from_numpy(clip).float()[None, :, None] / 255)
    assert (tensor.shape, tensor.dtype) == ((1, 12, 1, 64, 64), torch.float32)
    assert np.abs(tensor[0, :, 0].numpy() * 255 - wanted).max() <= 0.5 + 1e-3
    from PIL import Image

    images = codec.reconstruct([Image.fromarray(frame) for frame in clip])
    assert np.array_equal(np.stack([np.asarray(image) for image in images]), wanted)


def test_a_saved_codec_is_the_same(codec: Codec, clip: np.ndarray, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    again = stzoo.load_codec(tmp_path)
    assert torch.equal(again.encode(clip), codec.encode(clip))
    assert "vqvae, 1x64x64 -> 16x16 latents of 64, 512 codes" in repr(again)


def test_other_sizes(codec: Codec) -> None:
    assert codec.reconstruct(np.zeros((2, 96, 128), np.uint8)).shape == (2, 96, 128)


def test_random_weights_are_said_to_be(clip: np.ndarray) -> None:
    assert "random weights" in repr(stzoo.load_codec("vqvae-mmnist", pretrained=False))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.encode(np.zeros((2, 66, 64), np.uint8)), "multiples of 4, given 66x64"),
        (lambda c: c.encode(np.full((2, 64, 64), np.nan)), "NaN"),
        (lambda c: c.encode(np.zeros((2, 3, 64, 64), np.uint8)), "expected"),
        (lambda c: c.decode(torch.zeros(1, 2, 32, 16, 16)), r"\(B, T, 64, h, w\), given \(1, 2, 32, 16, 16\)"),
        (lambda c: c.quantise(torch.zeros(64, 16, 16)), r"latents \(B, T, 64, h, w\)"),
        (lambda c: c.decode(torch.full((1, 1, 2, 2), 512)), r"\[0, 511\], given \[512, 512\]"),
        (lambda c: c.decode(torch.full((1, 1, 2, 2), -1)), r"\[0, 511\]"),
        (lambda c: c.decode(torch.zeros(2, 2, dtype=torch.int64)), r"numbers of codes \(B, T, h, w\)"),
        (lambda c: c.decode(np.zeros((1, 1, 64, 2, 2))), r"expected a tensor of float latents .* given a ndarray"),
        (lambda c: c.quantise(torch.full((1, 1, 64, 2, 2), torch.nan)), "not finite"),
        (lambda c: c.quantise(torch.zeros(1, 1, 64, 2, 2, dtype=torch.int64)), r"of torch\.int64"),
        (lambda c: c.decode(torch.zeros(1, 1, 0, 2, dtype=torch.int64)), r"\(1, 1, 0, 2\)"),
        (lambda c: c.decode(torch.zeros(1, 1, 2, 2, dtype=torch.complex64)), r"of torch\.complex64"),
    ],
)
def test_bad_input(codec: Codec, call: Any, message: str) -> None:
    with pytest.raises(FramesError, match=message):
        call(codec)


def test_without_weights_the_way_to_random_ones_is_named() -> None:
    with pytest.raises(NotPublishedError, match=r"stzoo\.load_codec\('vqvae-kth', pretrained=False\)"):
        stzoo.load_codec("vqvae-kth")
    with pytest.raises(NotPublishedError, match=r"stzoo\.create\('tctn-modular-kth'\)"):
        stzoo.load("tctn-modular-kth")


def test_a_codec_is_no_forecaster_and_the_other_way_round(codec: Codec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    for source in ("vqvae-mmnist", tmp_path):
        with pytest.raises(SpecError, match=r"is a codec, which forecasts nothing; open it with stzoo\.load_codec"):
            stzoo.load(source)
    with pytest.raises(SpecError, match="is a codec"):
        stzoo.create("vqvae-mmnist")
    with pytest.raises(SpecError, match=r"^arch 'vqvae' is a codec, .*; stzoo\.models\.build makes its module$"):
        stzoo.create(codec.spec)  # which is no entry that load_codec could open
    for pretrained in (True, False):
        with pytest.raises(SpecError, match=r"tau-mmnist is a forecaster, not a codec; open it with stzoo\.load\("):
            stzoo.load_codec("tau-mmnist", pretrained=pretrained)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_codec_that_makes_nan_paints_nothing(part: str, clip: np.ndarray) -> None:
    broken = stzoo.load_codec("vqvae-mmnist")
    with torch.no_grad():
        for parameter in getattr(broken.module, part).parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(ForecastError, match="not finite" if part == "encoder" else "NaN"):
        broken.reconstruct(clip)
