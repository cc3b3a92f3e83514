import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gray_videos import brightness, write_video
from PIL import Image

from stzoo.data import Reading, Split, own_clips
from stzoo.errors import DataError

READING = Reading(channels=1, height=16, width=16)
PARTS: tuple[Split, ...] = ("train", "validation", "test")


def values(data: own_clips.OwnClips, part: Split, length: int = 2) -> list[int]:
    windows = data.split(part, length - 1, 1)
    return [round(brightness(windows.clips(i, i + 1).past[0, 0])) for i in range(len(windows))]


def test_any_mixture_is_split_by_file(tmp_path: Path) -> None:
    write_video(tmp_path / "clip2.mp4", [20] * 3)
    write_video(tmp_path / "clip10.avi", [100] * 3)
    np.save(tmp_path / "clip3.npy", np.full((3, 20, 16), 30, np.uint8))
    first = Image.new("L", (9, 9), 10)
    first.save(tmp_path / "clip1.png", save_all=True, append_images=[Image.new("L", (9, 9), g) for g in (11, 12)])
    (tmp_path / "clip4").mkdir()
    for i in range(3):
        Image.new("RGB", (30, 20), (40, 40, 40)).save(tmp_path / "clip4" / f"{i}.jpg")
    (tmp_path / "notes.txt").write_text("nothing")
    data = own_clips.open_folder(tmp_path, READING)
    assert [f.name for f in data.files["train"]] == ["clip1.png", "clip2.mp4", "clip3.npy"]  # 2 before 10
    assert [f.name for f in data.files["validation"]] == ["clip4"]
    assert [f.name for f in data.files["test"]] == ["clip10.avi"]
    np.testing.assert_allclose(values(data, "train"), [10, 11, 20, 20, 30, 30], atol=3)
    np.testing.assert_allclose([*values(data, "validation"), *values(data, "test")], [40, 100], atol=3)
    assert "split by file" in data.describe()


def test_folders_named_after_the_parts_are_the_parts(tmp_path: Path) -> None:
    for part, gray in zip(PARTS, (10, 60, 110), strict=True):
        write_video(tmp_path / part / "a.avi", [gray] * 3)
    data = own_clips.open_folder(tmp_path, READING)
    np.testing.assert_allclose([values(data, p)[0] for p in PARTS], [10, 60, 110], atol=3)


def test_a_single_file_is_split_by_time(tmp_path: Path) -> None:
    file = tmp_path / "one.npy"
    np.save(file, np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None], (100, 16, 16)))
    for where in (file, tmp_path):
        data = own_clips.open_folder(where, READING)
        assert values(data, "train") == list(range(79))
        assert values(data, "validation") == [80, 85]
        assert values(data, "test") == [90, 95]
    assert "split by time" in data.describe()
    with pytest.raises(
        DataError, match=r"no recording has 12 frames; .* the test part of .*one\.npy, split by time, has 10"
    ):
        data.split("test", 10, 2)


def test_arrays_keep_their_units_and_their_holes_are_masked(tmp_path: Path) -> None:
    field = np.random.default_rng(0).normal(280, 5, (30, 2, 18, 20)).astype(np.float64)
    field[3, 1, 5, 6] = np.nan
    np.savez(tmp_path / "field.npz", frames=field)
    reading = Reading(channels=2, height=16, width=16, fill=280.0)
    clip = own_clips.open_folder(tmp_path, reading).split("train", 2, 3).clips(0, 1)
    assert clip.future.dtype.is_floating_point
    inner = field[2:5, :, 1:17, 2:18]  # the middle
    assert clip.valid is not None
    assert not clip.valid[0, 1, 0, 4, 4]
    assert clip.valid.sum() == clip.valid.numel() - 1
    assert clip.future[0, 1, 1, 4, 4] == 280.0
    known = np.broadcast_to(np.isfinite(inner).all(1, keepdims=True), inner.shape)
    np.testing.assert_allclose(clip.future[0].numpy()[known], inner[known].astype(np.float32))
    with pytest.raises(DataError, match=r"field\.npz.* holds NaN; the model's spec names no fill"):
        own_clips.open_folder(tmp_path, Reading(channels=2, height=16, width=16)).split("train", 2, 3)


def test_a_netcdf_file_is_read_by_its_time(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    values = np.random.default_rng(0).random((40, 16, 16), np.float32)
    xr.DataArray(values.transpose(1, 0, 2), dims=("y", "time", "x"), name="t").to_netcdf(tmp_path / "f.nc")
    clip = own_clips.open_folder(tmp_path / "f.nc", READING).split("train", 3, 2).clips(4, 5)
    np.testing.assert_array_equal(clip.past[0, :, 0].numpy(), values[4:7])


def test_maps_are_read_by_the_names_and_units_that_they_have(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    values = np.random.default_rng(0).random((40, 1, 16, 16), np.float32)
    dims = ("valid_time", "level", "easting", "northing")
    field = xr.DataArray(values.transpose(0, 1, 3, 2), dims=dims, name="t", attrs={"units": "K"})
    field.to_netcdf(tmp_path / "f.nc")
    reading = dataclasses.replace(READING, value_range=(0.0, 1.0))
    with pytest.raises(DataError, match=r"f\.nc: the values are in 'K'.*model's are in 1"):
        own_clips.open_folder(tmp_path / "f.nc", reading).split("train", 3, 2)
    field.assign_attrs(units="1").to_netcdf(tmp_path / "f.nc")
    clip = own_clips.open_folder(tmp_path / "f.nc", reading).split("train", 3, 2).clips(4, 5)
    np.testing.assert_array_equal(clip.past[0, :, 0].numpy(), values[4:7, 0])


def test_integers_in_the_models_unit_are_numbers(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    field = xr.DataArray(np.full((40, 16, 16), 10, np.uint8), dims=("time", "y", "x"), attrs={"units": "dBR"})
    field.to_netcdf(tmp_path / "f.nc")
    reading = dataclasses.replace(READING, value_range=(-10.4, 40.6))
    clip = own_clips.open_folder(tmp_path / "f.nc", reading).split("train", 3, 2).clips(4, 5)
    assert (clip.past == 10).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        (
            (30, 12, 16),
            np.uint8,
            r"shape \(24, 12, 16\); expected \(T, H, W\) or .* with 1 channels, of at least 16x16, .* --size own\)$",
        ),
        ((30, 3, 16, 16), np.uint8, "expected .* with 1 channels, given 3$"),
        ((30, 3, 12, 16), np.uint8, "expected .* with 1 channels, given 3$"),
        ((30, 16), np.uint8, "expected .* with 1 channels$"),
        ((30, 16, 16), np.int64, "holds int64; expected uint8 or floats"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(shape: tuple[int, ...], dtype: type, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, dtype))
    with pytest.raises(DataError, match=message):
        own_clips.open_folder(tmp_path, READING).split("train", 2, 2)


def test_an_empty_folder_and_a_bad_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no video, animation, array file or folder of images"):
        own_clips.open_folder(tmp_path, READING)
    (tmp_path / "a.npy").write_bytes(b"not an array")
    with pytest.raises(DataError, match=r"a\.npy is damaged"):
        own_clips.open_folder(tmp_path, READING).split("train", 2, 2)


def test_values_outside_the_range_are_refused_and_so_is_infinity(tmp_path: Path) -> None:
    reading = Reading(channels=1, height=16, width=16, value_range=(0.0, 1.0), fill=0.0)
    np.save(tmp_path / "a.npy", np.full((30, 16, 16), 200, np.float32))
    with pytest.raises(DataError, match=r"a\.npy.* has values from 200 to 200; the model's lie in \[0, 1\]"):
        own_clips.open_folder(tmp_path, reading).split("train", 2, 2)
    field = np.zeros((30, 16, 16), np.float32)
    field[5, 2, 2] = np.inf
    np.save(tmp_path / "a.npy", field)
    for value_range in ((0.0, 1.0), None):
        wide = Reading(channels=1, height=16, width=16, value_range=value_range, fill=0.0)
        with pytest.raises(DataError, match=r"has values from 0 to inf"):
            own_clips.open_folder(tmp_path, wide).split("train", 2, 2)


def test_deep_images_are_refused_rather_than_saturated(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for i in range(4):
        Image.fromarray(np.full((20, 20), 9000, np.uint16)).save(tmp_path / "deep" / f"{i}.png")
    with pytest.raises(DataError, match="has mode I;16, which has no 8-bit scale"):
        own_clips.open_folder(tmp_path, READING).split("train", 1, 1)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_video(tmp_path / part / "a.avi", [10] * 3)
    with pytest.raises(DataError, match="has parts but no validation"):
        own_clips.open_folder(tmp_path, READING)


def test_channels_last_and_fields_in_any_order_are_read_as_predict_reads_them(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    values = np.random.default_rng(0).random((40, 2, 16, 18), np.float32)
    np.save(tmp_path / "last.npy", values.transpose(0, 2, 3, 1))
    reading = Reading(channels=2, height=16, width=16)
    clip = own_clips.open_folder(tmp_path / "last.npy", reading).split("train", 3, 2).clips(4, 5)
    np.testing.assert_array_equal(clip.past[0].numpy(), values[4:7, ..., 1:17])
    field = xr.DataArray(values.transpose(3, 0, 1, 2), dims=("longitude", "time", "channel", "latitude"), name="t")
    field.to_netcdf(tmp_path / "f.nc")
    clip = own_clips.open_folder(tmp_path / "f.nc", reading).split("train", 3, 2).clips(4, 5)
    np.testing.assert_array_equal(clip.past[0].numpy(), values[4:7, ..., 1:17])


def test_links_in_circles_and_closed_folders_are_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("L", (16, 16), 40 * i).save(tmp_path / name / f"{i}.png")
    for k in range(3):  # either holds the other, so neither is a clip
        (tmp_path / "c" / f"to-d{k}").symlink_to(tmp_path / "d")
        (tmp_path / "d" / f"to-c{k}").symlink_to(tmp_path / "c")
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "6.png").symlink_to("nowhere")
    (tmp_path / "closed").mkdir()
    read = Path.iterdir

    def denied(folder: Path) -> Iterator[Path]:
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return read(folder)

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.warns(UserWarning, match="left out: .*closed cannot be looked into: Permission denied"):
        data = own_clips.open_folder(tmp_path, Reading(channels=1, height=16, width=16, skip_bad=True))
    assert {path.name for path in data.files["train"]} == {"a", "b"}
    with pytest.warns(UserWarning, match=r"left out: .*6\.png"):
        assert len(data.split("train", 2, 2)) > 0
    with pytest.warns(UserWarning, match="left out"), pytest.raises(DataError, match="closed cannot be looked into"):
        own_clips.open_folder(tmp_path / "closed", READING)


def test_pages_are_clips_and_hidden_files_are_not(tmp_path: Path) -> None:
    """A TIFF of several pages is a clip; what is hidden is none, file or folder."""
    for i in range(4):
        first, *rest = [Image.new("L", (16, 16), 10 * i + k) for k in range(3)]
        first.save(tmp_path / f"t{i - 2:+d}.tif", save_all=True, append_images=rest)
        first.save(tmp_path / f"._t{i - 2:+d}.png")
    (tmp_path / ".cache").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / ".cache" / "0.png")
    data = own_clips.open_folder(tmp_path, READING)
    assert [path.name for part in PARTS for path in data.files[part]] == ["t-2.tif", "t-1.tif", "t+0.tif", "t+1.tif"]
    assert values(data, "train") == [0, 1, 10, 11]


def test_images_are_read_upright_and_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 3  # upside down
    ramp = np.tile(np.arange(0, 256, 16, dtype=np.uint8)[:, None], (1, 16))
    (tmp_path / "a").mkdir()
    for i in range(10):
        Image.fromarray(ramp).save(tmp_path / "a" / f"{i}.png", exif=exif)
        (tmp_path / "a" / f"._{i}.png").write_bytes(b"hidden")
    clip = own_clips.open_folder(tmp_path, READING).split("train", 1, 1).clips(0, 1)
    np.testing.assert_array_equal(clip.past[0, 0, 0].numpy(), ramp[::-1])
    Image.fromarray(ramp).save(tmp_path / "a" / "3.jpg")
    with pytest.raises(DataError, match=r"holds a frame twice, as 3\.jpg and as 3\.png"):
        own_clips.open_folder(tmp_path, READING).split("train", 1, 1)


def test_floats_beside_the_range_by_rounding_are_clipped(tmp_path: Path) -> None:
    reading = Reading(channels=1, height=16, width=16, value_range=(0.0, 1.0))
    field = np.linspace(0, 1, 30 * 256, dtype=np.float32).reshape(30, 16, 16)
    field[0, 0, 0], field[0, 0, 1] = -1e-8, np.nextafter(np.float32(1), np.float32(2))
    np.save(tmp_path / "a.npy", field)
    past = own_clips.open_folder(tmp_path, reading).split("train", 1, 1).clips(0, 1).past.numpy()
    np.testing.assert_array_equal(past[0, 0, 0], field[0].clip(0, 1))
    field[0, 0, 1] = 1.00002
    np.save(tmp_path / "a.npy", field)
    with pytest.raises(DataError, match=r"has values from -1e-08 to 1\.00002; the model's lie in \[0, 1\]"):
        own_clips.open_folder(tmp_path, reading).split("train", 1, 1)
