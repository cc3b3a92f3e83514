"""`stzoo predict` and `stzoo rollout`: what is read, what is written, and what is refused."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stzoo.cli import main
from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames.images import read_images


def test_rollout_reads_and_writes_animations(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    first, *rest = [Image.fromarray(f) for f in frames]
    first.save(tmp_path / "in.png", save_all=True, append_images=rest)
    model = ["--model", str(tmp_path / "model")]
    assert main(["rollout", str(tmp_path / "in.png"), *model, "--steps", "7", "-o", str(tmp_path / "out.png")]) == 0
    assert "7 frames" in capsys.readouterr().out
    written = np.stack([np.asarray(i) for i in read_images(tmp_path / "out.png")])
    np.testing.assert_array_equal(written, forecaster.rollout(frames, 7))
    assert main(["predict", str(tmp_path / "in.png"), *model, "-o", str(tmp_path / "folder")]) == 0
    assert len(list((tmp_path / "folder").iterdir())) == 4


@pytest.mark.parametrize("out", ["out.gif", "out.png", "out.webp", "out", "out.npy"])
def test_an_array_file_is_forecast_without_a_warning(
    out: str, forecaster: Forecaster, frames: np.ndarray, tmp_path: Path
) -> None:
    """The array is mapped from its file, read-only, of which torch would warn once in a process."""
    forecaster.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "in.npy", frames)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            command = ["predict", str(tmp_path / "in.npy"), "--model", str(tmp_path / "model")]
            assert main([*command, "-o", str(tmp_path / out)]) == 0
    finally:
        torch.set_warn_always(False)


def test_steps_of_zero_and_files_in_the_way_are_refused(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    first, *rest = [Image.fromarray(f) for f in frames]
    first.save(tmp_path / "in.png", save_all=True, append_images=rest)
    start = ["rollout", str(tmp_path / "in.png"), "--model", str(tmp_path / "model")]
    assert main([*start, "--steps", "0", "-o", str(tmp_path / "out.png")]) == 2
    assert "steps is 0" in capsys.readouterr().err
    assert main([*start, "--steps", "3", "-o", str(tmp_path / "model")]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*start, "--steps", "3", "-o", "/proc/out.png"]) == 2
    assert capsys.readouterr().err.startswith("stzoo: ")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Twenty frames of colour noise, 38x20, which not every model takes."""
    video = pytest.importorskip("stzoo.frames.video")
    pytest.importorskip("av")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (20, 38, 3), dtype=np.uint8)) for _ in range(20)]
    video.write_video(tmp_path / "in.avi", images)
    return tmp_path / "in.avi"


@pytest.mark.parametrize("out", ["out.gif", "out.png", "out.webp", "out.mp4", "out.avi", "out", "out.npy", "out.npz"])
def test_a_recording_becomes_any_kind_of_file(
    forecaster: Forecaster, recording: Path, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    command = [
        "rollout",
        str(recording),
        "--model",
        str(tmp_path / "model"),
        "--steps",
        "6",
        "--every",
        "3",
        "--color",
        "gray",
    ]
    assert main([*command, "-o", str(tmp_path / out)]) == 0
    assert "6 frames" in capsys.readouterr().out
    expected = np.stack([np.asarray(i) for i in forecaster.rollout(recording, 6, every=3, color="gray")])
    if out.startswith("out.np"):
        written = np.load(tmp_path / out)
        written = written if out == "out.npy" else written["frames"]
    else:
        from stzoo.frames.video import read_video

        read: Any = read_video if out in ("out.mp4", "out.avi") else read_images
        written = np.stack([np.asarray(i.convert("L")) for i in read(tmp_path / out)])
    tolerance = 12 if out in ("out.mp4", "out.avi") else 0  # on average
    assert np.abs(written.astype(float) - expected).mean() <= tolerance
    assert {p.name for p in tmp_path.iterdir()} == {"in.avi", "model", out}


def test_a_recording_comes_back_at_its_size_unless_asked_otherwise(
    forecaster: Forecaster, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    command = ["predict", str(recording), "--model", str(tmp_path / "model"), "-o", str(tmp_path / "out.png")]
    for option, resize in (([], None), (["--size", "own"], False), (["--size", "model"], True)):
        for color in ([], ["--color", "gray"]):
            assert main([*command, *option, *color]) == 0
            expected = forecaster.predict(recording, resize=resize, color=color[-1] if color else None)
            for ours, theirs in zip(read_images(tmp_path / "out.png"), expected, strict=True):
                assert theirs.mode == ("L" if color else "RGB")
                np.testing.assert_array_equal(np.asarray(ours.convert(theirs.mode)), np.asarray(theirs))
    (tmp_path / "out.png").unlink()
    capsys.readouterr()
    assert main([*command, "--every", "0"]) == 2
    assert "every is 0" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_arrays_and_fields_come_back_as_what_they_were(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xarray = pytest.importorskip("xarray")
    forecaster.save_pretrained(tmp_path / "model")
    model = ["--model", str(tmp_path / "model"), "--steps", "5"]
    np.savez(tmp_path / "in.npz", frames=frames)
    field = xarray.DataArray((frames / 255).astype("f4"), dims=("time", "y", "x"), name="rain")
    field.assign_coords(time=np.arange(6) * 5).to_netcdf(tmp_path / "in.nc")
    for name, outs in (("in.npz", ("a.npy", "a.gif")), ("in.nc", ("b.nc", "b.zarr", "b.npy"))):
        for out in outs:
            assert main(["rollout", str(tmp_path / name), *model, "-o", str(tmp_path / out)]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), forecaster.rollout(frames, 5))
    pictures = [np.asarray(i.convert("L")) for i in read_images(tmp_path / "a.gif")]
    np.testing.assert_array_equal(np.stack(pictures), forecaster.rollout(frames, 5))
    with xarray.open_dataset(tmp_path / "b.nc") as written:
        assert written.rain.time.values.tolist() == [30, 35, 40, 45, 50]
        np.testing.assert_array_equal(written.rain.values, np.load(tmp_path / "b.npy"))
    capsys.readouterr()
    np.save(tmp_path / "floats.npy", frames / 255)
    for name, out, message in (
        ("in.nc", "c.gif", "cannot write c.gif from in.nc; use .nc"),
        ("in.npz", "c.nc", "cannot write c.nc from in.npz; use .gif"),
        ("floats.npy", "c.gif", "are no pictures"),
        ("in.nc", "b.zarr", "exists"),
        ("in.npz", "nowhere/c.npy", "does not exist"),
    ):
        assert main(["rollout", str(tmp_path / name), *model, "-o", str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err
        assert not list(tmp_path.glob("c.*"))


def test_the_input_is_looked_at_first_and_never_overwritten(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    model = ["--model", str(tmp_path / "model")]
    assert main(["predict", str(tmp_path / "none.gif"), *model, "-o", "/nowhere/out.gif"]) == 2
    assert "none.gif does not exist" in capsys.readouterr().err
    first, *rest = [Image.fromarray(f) for f in frames]
    first.save(tmp_path / "in.png", save_all=True, append_images=rest)
    (tmp_path / "link.png").symlink_to("in.png")
    images = tmp_path / "images"
    images.mkdir()
    for i, image in enumerate([first, *rest]):
        image.save(images / f"{i}.png")
    for given, out in (
        ("in.png", "in.png"),
        ("in.png", "link.png"),
        ("link.png", "in.png"),
        ("images", "images/3.png"),
    ):
        before = (tmp_path / out).read_bytes()
        assert main(["predict", str(tmp_path / given), *model, "-o", str(tmp_path / out)]) == 2
        assert "name another file for the forecast" in capsys.readouterr().err
        assert (tmp_path / out).read_bytes() == before
    for _ in range(2):  # a forecast beside the images is no input
        assert main(["predict", str(images), *model, "-o", str(images / "next.gif")]) == 0


def test_warnings_of_commands_are_one_line_without_source_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loading(*_: Any, **__: Any) -> None:
        raise FramesError(warnings.formatwarning("it is slow", UserWarning, "file.py", 3).strip())

    monkeypatch.setattr("stzoo.forecaster.load", loading)
    (tmp_path / "in.gif").write_bytes(b"GIF89a")
    before = warnings.formatwarning
    assert main(["predict", str(tmp_path / "in.gif"), "--model", "tau-ut", "-o", str(tmp_path / "out.gif")]) == 2
    assert capsys.readouterr().err == "stzoo: stzoo: warning: it is slow\n"
    assert warnings.formatwarning is before
