"""What a player honours is honoured: turned pictures, shapes of pixels, edit lists, gaps, the right stream."""

import struct
import warnings
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stzoo import frames as room
from stzoo.data import Reading
from stzoo.data.recordings import decode_once
from stzoo.errors import FramesError
from stzoo.forecaster import Forecaster
from stzoo.frames.video import _turn, read_video, video_clock

av = pytest.importorskip("av", reason="the extra `video` is not installed")

SHADES = [5 * i + 20 for i in range(40)]


def add(container: object, codec: str = "mpeg4", size: tuple[int, int] = (32, 24)) -> object:
    stream = container.add_stream(codec, rate=Fraction(25))  # type: ignore[attr-defined]
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    stream.options = {"qmin": "1", "qmax": "1"} if codec == "mpeg4" else {}
    return stream


def encode(container: object, stream: object, pictures: Iterable[tuple[int, np.ndarray]]) -> None:
    """(time in 25ths of a second, (H, W) uint8) each."""
    for time, picture in pictures:
        frame = av.VideoFrame.from_ndarray(np.repeat(picture[:, :, None], 3, 2), format="rgb24")
        frame.pts, frame.time_base = time, Fraction(1, 25)
        container.mux(stream.encode(frame))  # type: ignore[attr-defined]
    container.mux(stream.encode(None))  # type: ignore[attr-defined]


def record(
    path: Path, times: Iterable[int] = range(40), shape: Fraction | None = None, options: dict[str, str] | None = None
) -> Path:
    """Flat frames, whose shades are those of their times."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = add(container)
        if shape is not None:
            stream.sample_aspect_ratio = shape  # type: ignore[attr-defined]
        encode(container, stream, ((t, np.full((24, 32), SHADES[t], np.uint8)) for t in times))
    return path


def shades(images: Iterable[Image.Image]) -> list[int]:
    """Which frames of a recording these are."""
    means = np.array([np.asarray(image.convert("L"), float).mean() for image in images])
    assert np.abs(means[:, None] - SHADES).min(1).max() < 2.5
    return [int(np.abs(m - SHADES).argmin()) for m in means]


TURNED = {  # (a, b, c, d) of the display matrix -> the corners: above left and right, below left and right
    (0, 1, -1, 0): [160, 20, 230, 90],
    (-1, 0, 0, -1): [230, 160, 90, 20],
    (0, -1, 1, 0): [90, 230, 20, 160],
    (-1, 0, 0, 1): [90, 20, 230, 160],
    (1, 0, 0, -1): [160, 230, 20, 90],
    (0, 1, 1, 0): [20, 160, 90, 230],
    (0, -1, -1, 0): [230, 90, 160, 20],
    (1, 0, 0, 1): [20, 90, 160, 230],
}


@pytest.mark.parametrize("matrix", TURNED)
def test_a_display_matrix_turns_the_picture(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    picture = np.kron(np.array([[20, 90], [160, 230]], np.uint8), np.ones((16, 24), np.uint8))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        encode(container, add(container, size=(48, 32)), ((t, picture) for t in range(3)))
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    at = content.find(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(content)
    images = list(read_video(tmp_path / "a.mp4"))
    assert len(images) == 3
    assert {image.size for image in images} == {(48, 32) if matrix[0] else (32, 48)}
    gray = np.asarray(images[0].convert("L"), int)
    corners = [gray[4, 4], gray[4, -5], gray[-5, 4], gray[-5, -5]]
    np.testing.assert_allclose(corners, TURNED[matrix], atol=6)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("shape", "size"), [((2, 1), (64, 24)), ((1, 2), (32, 48)), ((16, 15), (34, 24))])
def test_pixels_that_are_not_square_are_stretched(
    suffix: str, shape: tuple[int, int], size: tuple[int, int], tmp_path: Path
) -> None:
    path = record(tmp_path / f"a{suffix}", range(5), Fraction(*shape))
    assert {image.size for image in read_video(path)} == {size}
    assert shades(read_video(path)) == list(range(5))


def test_what_an_edit_list_hides_is_no_frame(tmp_path: Path) -> None:
    """As phones trim: the frames before the cut stay in the file, to decode those after it."""
    path = record(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    at = content.find(b"elst") + 12
    content[at : at + 8] = struct.pack(">2I", 1000, 15 * 512)  # milliseconds, and the first one in 12800ths of a second
    path.write_bytes(content)
    assert shades(read_video(path)) == list(range(15, 40))
    assert shades(read_video(path, start=0.2, last=2)) == [20, 21]


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_file_without_its_end_is_cut_short(suffix: str, tmp_path: Path) -> None:
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    path = record(tmp_path / f"a{suffix}", options=options)
    whole = path.read_bytes()
    assert shades(read_video(path)) == list(range(40))
    starts = [i for i in range(len(whole) - 4) if whole[i : i + 4] == b"\x00\x00\x01\xb6"]  # of frames, in MPEG-4
    before = 8 if suffix == ".avi" else 0  # bytes of a frame's header
    path.write_bytes(whole[: starts[20] - before])
    with pytest.raises(FramesError, match=rf"a\{suffix} is cut short: its header promises 40 frames, 20 are there"):
        list(read_video(path))
    assert shades(read_video(path, last=4, start=0.2)) == [5, 6, 7, 8]  # nothing behind these is read


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_gap_is_a_pause_and_is_told(suffix: str, tmp_path: Path) -> None:
    path = record(tmp_path / f"a{suffix}", [*range(25), *range(35, 40)])
    with pytest.warns(
        UserWarning, match=rf"a\{suffix}: its frames are unevenly spaced in time; it is read at 25 frames"
    ):
        images = list(read_video(path))
    assert shades(images) == [*range(25), *[24] * 10, *range(35, 40)]
    with pytest.warns(UserWarning, match="unevenly spaced"):
        assert shades(read_video(path, last=10)) == [*[24] * 5, *range(35, 40)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shades(read_video(path, fps=5)) == [0, 5, 10, 15, 20, 24, 24, 35]
    with pytest.warns(UserWarning, match="unevenly spaced"):
        made = decode_once(path, Reading(channels=1, height=8, width=8), read_video)
    assert len(made) == 40
    np.testing.assert_array_equal(made[24], made[34])


@pytest.mark.parametrize(("codec", "first"), [("libx264", -1024), ("mpeg4", -512)])
def test_an_avi_with_frames_that_refer_to_later_ones(codec: str, first: int, tmp_path: Path) -> None:
    """Copied from an .mp4, as `ffmpeg -c copy` does: .avi files do not say when frames are shown."""
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = add(container, codec)
        stream.options = {**stream.options, "bf": "2"}  # type: ignore[attr-defined]
        encode(container, stream, ((t, np.full((24, 32), SHADES[t], np.uint8)) for t in range(40)))
    with av.open(str(tmp_path / "a.mp4")) as given, av.open(str(tmp_path / "a.avi"), "w") as container:
        source = given.streams.video[0]
        stream = container.add_stream_from_template(source)
        name = "h264_mp4toannexb" if codec == "libx264" else "null"
        converter = av.bitstream.BitStreamFilterContext(name, source, stream)
        stored = (packet for packet in given.demux(source) if packet.size)
        for packet in (converted for each in stored for converted in converter.filter(each)):
            packet.stream, packet.pts, packet.dts = stream, packet.pts - first, packet.dts - first
            container.mux(packet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shades(read_video(tmp_path / "a.avi")) == list(range(40))
    assert video_clock(tmp_path / "a.avi").rate == 25


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
def test_joined_recordings_lose_no_frame(suffix: str, tmp_path: Path) -> None:
    """One goes on a step later; so does one behind a gap."""
    whole, gap = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for path, times in ((whole, [*range(12)]), (gap, [*range(6), *range(9, 12)])):
        with av.open(str(path), "w") as container:
            stream = add(container, "mpeg2video")
            stream.options = {"qmin": "1", "qmax": "1"}  # type: ignore[attr-defined]
            encode(container, stream, ((t, np.full((24, 32), SHADES[t], np.uint8)) for t in times))
    twice, mixed = tmp_path / f"c{suffix}", tmp_path / f"d{suffix}"
    twice.write_bytes(whole.read_bytes() * 2)
    mixed.write_bytes(gap.read_bytes() + whole.read_bytes())
    assert shades(read_video(twice)) == [*range(12)] * 2
    if suffix == ".mpg":  # its writer closes the gap
        return
    with pytest.warns(UserWarning, match="unevenly spaced"):
        assert shades(read_video(mixed)) == [*range(6), 5, 5, 5, *range(9, 12), *range(12)]


def test_a_display_matrix_holds_until_another_one_comes() -> None:
    class Frame:
        def __init__(self, *matrix: int) -> None:
            self.side_data = {"DISPLAYMATRIX": struct.pack("=9i", *matrix)} if matrix else {}

    quarter = Frame(0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    upright = Frame(65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    turns, turn = [], None
    for frame in (Frame(), quarter, Frame(), upright, Frame()):
        turn = _turn(frame, turn)
        turns.append(turn)
    assert turns == [None, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_270, None, None]


def test_start_and_rate_choose_the_past(forecaster: Forecaster, tmp_path: Path) -> None:
    path = record(tmp_path / "a.mp4")
    images = list(read_video(path))
    for how, chosen in (
        ({"start": 0.4}, images[10:14]),
        ({"start": 0.41, "every": 2}, images[10:18:2]),
        ({"fps": 5}, images[20::5]),
        ({"fps": 12.5, "start": 0.2, "every": 2}, images[5:21:4]),
    ):
        ours = forecaster.predict(path, resize=True, **how)  # type: ignore[arg-type]
        expected = forecaster.predict(chosen, resize=True)
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert len(list(forecaster.stream(path, 3, start=0.4, fps=5, resize=True))) == 3
    with pytest.raises(FramesError, match=r"a\.mp4: start=9 is after its end; it lasts 1\.6 seconds"):
        forecaster.predict(path, start=9, resize=True)
    with pytest.raises(FramesError, match=r"a\.mp4: 2 frames follow start=1\.52, .* at most start=1\.44"):
        forecaster.predict(path, start=1.52, resize=True)
    for name, value in (("start", -1), ("start", "1"), ("fps", 0), ("fps", float("nan")), ("fps", True)):
        with pytest.raises(FramesError, match=f"{name} is {value!r}"):
            forecaster.predict(path, resize=True, **{name: value})  # type: ignore[arg-type]
    for what in (images, np.zeros((9, 16, 16), np.uint8)):
        with pytest.raises(FramesError, match="fps is for the files of videos"):
            forecaster.predict(what, fps=5)
    assert room.seconds_between(path, 2) == pytest.approx(0.08)
    assert room.seconds_between(path, 2, 10) == pytest.approx(0.2)


def test_a_long_video_shows_a_bar_only_where_it_is_asked_for(
    forecaster: Forecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []

    def bar(frames: Iterable[object], name: str, total: int, **how: object) -> Iterable[object]:
        bars.append((name, total, how["disable"]))
        return frames

    monkeypatch.setattr("stzoo.frames.video.tqdm", bar)
    path = record(tmp_path / "a.mp4")
    forecaster.predict(path, resize=True)
    forecaster.rollout(path, 1, resize=True, progress=True)
    assert bars == [("reading a.mp4", 40, True), ("reading a.mp4", 40, False)]


@pytest.mark.parametrize(("dispositions", "size"), [((1, 0), (32, 24)), ((0, 1), (64, 48)), ((1, 1), (64, 48))])
def test_the_default_stream_is_read_and_of_several_the_largest(
    dispositions: tuple[int, int], size: tuple[int, int], tmp_path: Path
) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w", options={"default_mode": "passthrough"}) as container:
        streams = [add(container, size=each) for each in ((32, 24), (64, 48))]
        for stream, disposition in zip(streams, dispositions, strict=True):
            stream.disposition = disposition  # type: ignore[attr-defined]
        for stream in streams:
            picture = np.full((stream.height, stream.width), 50, np.uint8)  # type: ignore[attr-defined]
            encode(container, stream, ((t, picture) for t in range(5)))
    assert {image.size for image in read_video(tmp_path / "a.mkv")} == {size}


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        cover = add(container, "mjpeg", (96, 96))
        cover.pix_fmt, cover.disposition = "yuvj420p", 1024  # type: ignore[attr-defined]
        stream = add(container)
        encode(container, cover, [(0, np.full((96, 96), 200, np.uint8))])
        encode(container, stream, ((t, np.full((24, 32), SHADES[t], np.uint8)) for t in range(5)))
    assert shades(read_video(tmp_path / "a.mp4")) == list(range(5))


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("a.ts", "mpeg2video", "mpegts"), ("a.mts", "mpeg2video", "mpegts"), ("a.flv", "flv", "flv"),
        ("a.3gp", "mpeg4", "3gp"), ("a.wmv", "msmpeg4", "asf"), ("a.ogv", "libtheora", "ogg"),
    ],
)  # fmt: skip
def test_videos_by_any_name_are_videos(
    name: str, codec: str, kind: str, forecaster: Forecaster, tmp_path: Path
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    with av.open(str(tmp_path / name), "w", format=kind) as container:
        stream = add(container, codec)
        encode(container, stream, ((t, np.full((24, 32), SHADES[t], np.uint8)) for t in range(9)))
    assert len(list(read_video(tmp_path / name))) == 9
    assert len(forecaster.predict(tmp_path / name, resize=True)) == 4
    assert video_clock(tmp_path / name).rate == 25


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_animations_have_a_clock_as_well(suffix: str, tmp_path: Path) -> None:
    images = [Image.fromarray(np.full((16, 16), shade, np.uint8)) for shade in SHADES[:20]]
    path = tmp_path / f"a{suffix}"
    images[0].save(path, save_all=True, append_images=images[1:], duration=40, lossless=suffix == ".webp")
    assert room.seconds_between(path, 3) == pytest.approx(0.12)
    assert shades(room.moving_pictures(path, start=0.2, last=3)) == [5, 6, 7]
    assert shades(room.moving_pictures(path, fps=5)) == [0, 5, 10, 15]
    assert shades(room.moving_pictures(path, 2, fps=12.5, last=2)) == [12, 16]
    with pytest.raises(FramesError, match=r"start=5 is after its end"):
        list(room.moving_pictures(path, start=5))


def test_images_of_a_folder_have_the_rate_that_the_caller_says(tmp_path: Path) -> None:
    for number, shade in enumerate(SHADES[:9]):
        Image.fromarray(np.full((16, 16), shade, np.uint8)).save(tmp_path / f"{number}.png")
    assert room.seconds_between(tmp_path) is None
    assert room.seconds_between(tmp_path, 2, 10) == pytest.approx(0.2)
    assert shades(room.moving_pictures(tmp_path, fps=10, last=3)) == [6, 7, 8]
    assert shades(room.moving_pictures(tmp_path, start=0.3, fps=10, last=3)) == [3, 4, 5]
    with pytest.raises(FramesError, match="say how many make a second: fps"):
        list(room.moving_pictures(tmp_path, start=1))
