"""`stzoo predict` and `stzoo rollout`: what is read, what is written, and what is refused."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stzoo.cli import forecast, main
from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames import fields
from stzoo.frames.arrays import ARRAYS
from stzoo.frames.fields import FIELDS
from stzoo.frames.images import ANIMATED, read_images
from stzoo.frames.video import WRITTEN
from stzoo.opening import create
from stzoo.spec import ModelSpec


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
    np.save(tmp_path / "clips.npy", np.stack([frames, frames])[:, :, None])
    for name, out, message in (
        ("in.nc", "c.tif", "cannot write c.tif from in.nc; use .nc"),
        ("in.npz", "c.nc", "cannot write c.nc from in.npz; use .gif"),
        ("clips.npy", "c.gif", "are no pictures: there are 2 clips"),
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

    monkeypatch.setattr("stzoo.opening.load", loading)
    (tmp_path / "in.gif").write_bytes(b"GIF89a")
    before = warnings.formatwarning
    assert main(["predict", str(tmp_path / "in.gif"), "--model", "tau-ut", "-o", str(tmp_path / "out.gif")]) == 2
    assert capsys.readouterr().err == "stzoo: stzoo: warning: it is slow\n"
    assert warnings.formatwarning is before


def test_a_forecast_plays_at_the_pace_of_its_input(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    av = pytest.importorskip("av")
    forecaster.save_pretrained(tmp_path / "model")
    images = [Image.fromarray(frame) for frame in np.concatenate([frames] * 4)]
    from stzoo.frames.video import write_video

    write_video(tmp_path / "in.mp4", images, 1001 / 30000)
    images[0].save(tmp_path / "in.webp", save_all=True, append_images=images[1:], duration=40, lossless=True)
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images):
        image.save(tmp_path / "in" / f"{number}.png")

    def made(given: str, out: str, *options: str) -> float:
        """Frames a second of the forecast."""
        command = ["predict", str(tmp_path / given), "--model", str(tmp_path / "model"), "-o", str(tmp_path / out)]
        assert main([*command, *options]) == 0
        if out.endswith(".mp4"):
            with av.open(str(tmp_path / out)) as container:
                return float(container.streams.video[0].average_rate)
        with Image.open(tmp_path / out) as image:
            image.load()
            return 1000 / image.info["duration"]

    assert made("in.mp4", "out.mp4") == pytest.approx(30000 / 1001)
    assert made("in.mp4", "out.mp4", "--every", "2") == pytest.approx(15000 / 1001)
    assert made("in.mp4", "out.mp4", "--fps", "12") == pytest.approx(12)
    assert made("in.webp", "out.mp4") == pytest.approx(25)
    assert made("in.webp", "out.webp", "--every", "2") == pytest.approx(12.5)
    assert made("in.mp4", "out.gif") == pytest.approx(100 / 3)  # a GIF counts in hundredths of a second
    assert made("in", "out.mp4") == pytest.approx(10)
    assert made("in", "out.mp4", "--fps", "24") == pytest.approx(24)


def test_past_truth_and_forecast_side_by_side(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    images = [Image.fromarray(frame) for frame in np.concatenate([frames, frames[::-1]])]
    images[0].save(tmp_path / "in.png", save_all=True, append_images=images[1:], duration=100)
    start = ["predict", str(tmp_path / "in.png"), "--model", str(tmp_path / "model"), "--side-by-side"]
    assert main([*start, "-o", str(tmp_path / "out.png"), "--start", "0.5"]) == 0
    sheets = read_images(tmp_path / "out.png")
    future = forecaster.predict(images[5:9], resize=True)
    assert len(sheets) == 8
    for place, image in enumerate((images[9], future[0])):  # 16x16, six times as large to make room
        x = 2 + place * 98
        tile = sheets[4].crop((x, 20, x + 96, 116)).resize((16, 16), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(np.asarray(tile), np.asarray(image))
    assert {sheet.width for sheet in sheets} == {2 * 98 + 2}
    assert "on the 3 frames that really followed" in capsys.readouterr().out
    assert main([*start, "-o", str(tmp_path / "short.png")]) == 0
    assert len(read_images(tmp_path / "short.png")) == 8
    capsys.readouterr()
    assert main([*start, "-o", str(tmp_path / "out.npy")]) == 2
    assert "--side-by-side is for pictures" in capsys.readouterr().err


def test_side_by_side_is_gray_as_a_whole_if_the_forecast_is(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    images = [Image.merge("RGB", [Image.fromarray(frame), *[Image.new("L", (16, 16))] * 2]) for frame in frames]
    images[0].save(tmp_path / "in.png", save_all=True, append_images=images[1:], duration=100)
    command = ["predict", str(tmp_path / "in.png"), "--model", str(tmp_path / "model"), "--side-by-side", "--no-check"]
    assert main([*command, "--color", "gray", "-o", str(tmp_path / "out")]) == 0
    assert {image.mode for image in read_images(tmp_path / "out")} == {"L"}


@pytest.mark.parametrize(
    ("value_range", "values", "says"),
    [
        ((-10.0, 41.0), np.linspace(-10, 40, 6), "values from -10 to 41, the range of the model, are drawn"),
        (None, np.linspace(270, 280, 6), "values from 274 to 280, the range of the past frames, are drawn"),
    ],
)
def test_numbers_and_maps_become_pictures(
    value_range: tuple[float, float] | None,
    values: np.ndarray,
    says: str,
    spec: ModelSpec,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    xarray = pytest.importorskip("xarray")
    model = create(spec.replace(value_range=value_range))
    model.save_pretrained(tmp_path / "model")
    frames = values.astype("f4")[:, None, None] * np.ones((16, 16), "f4")
    np.save(tmp_path / "in.npy", frames)
    latitudes = {"latitude": np.linspace(40, 55, 16)}  # south first, and pictures have north on top
    field = xarray.DataArray(frames, coords=latitudes, dims=("time", "latitude", "longitude"))
    field.transpose("longitude", "time", "latitude").to_netcdf(tmp_path / "in.nc")
    future = model.predict(frames)
    low, high = (values[2], values[5]) if value_range is None else value_range
    expected = np.rint(((future - low) / (high - low)).clip(0, 1) * 255)
    for name, drawn in (("in.npy", expected), ("in.nc", expected[:, ::-1])):
        command = ["predict", str(tmp_path / name), "--model", str(tmp_path / "model"), "--no-check"]
        out = tmp_path / name.replace(".", "_")
        assert main([*command, "-o", str(out)]) == 0
        assert says in capsys.readouterr().out
        np.testing.assert_allclose(np.stack([np.asarray(i) for i in read_images(out)]), drawn, atol=1)
        assert main([*command, "--side-by-side", "-o", f"{out}.gif"]) == 0
        assert len(read_images(Path(f"{out}.gif"))) == spec.frames_in + spec.frames_out


def test_a_start_too_near_the_end_names_the_latest(
    forecaster: Forecaster, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "in.png", save_all=True, append_images=images[1:], duration=100)
    command = ["predict", str(tmp_path / "in.png"), "--model", str(tmp_path / "model"), "-o", str(tmp_path / "out.png")]
    assert main([*command, "--start", "0.4"]) == 2
    says = "in.png: 2 frames follow start=0.4, and the model reads 4; use at most start=0.2"
    assert says in capsys.readouterr().err
    assert main([*command, "--start", "0.2"]) == 0


def test_what_the_words_alone_show_to_be_wrong_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "in.gif").touch()
    code = (
        "import sys; from stzoo.cli import main\n"
        "for words in (['none.gif', 'tau-ut', 'o.gif'], ['in.gif', 'tau-utt', 'o.gif'], ['in.gif', 'tau-ut', 'o.x']):\n"
        "    print(main(['predict', words[0], '--model', words[1], '-o', words[2]]))\n"
        "print({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n2\n2\nset()\n"
    assert [line.split("; ")[0] for line in done.stderr.splitlines()] == [
        "stzoo: none.gif does not exist",
        "stzoo: no model 'tau-utt' in the catalogue",
        "stzoo: cannot write o.x from in.gif",
    ]


def test_the_suffixes_that_are_known_without_torch_are_those_that_are_written() -> None:
    assert (*ANIMATED, *WRITTEN) == forecast.PICTURES
    assert (forecast.ARRAYS, forecast.MAPS) == (ARRAYS, FIELDS)
    assert tuple(fields._UNREAD) == forecast.UNREAD
