import gc
import os
import struct
import sys
import threading
import weakref
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stzoo import frames as room
from stzoo.errors import FramesError, MissingExtraError
from stzoo.forecaster import Forecaster
from stzoo.frames import video
from stzoo.frames.video import read_video, write_video
from stzoo.opening import create
from stzoo.spec import ModelSpec

av = pytest.importorskip("av", reason="the extra `video` is not installed")

SHADES = [5 * i + 20 for i in range(40)]  # of frame i: far enough apart that lossy coding cannot confuse them


def record(path: Path, size: tuple[int, int] = (32, 24)) -> Path:
    """Forty flat frames of rising shades, written by PyAV alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"qmin": "1", "qmax": "1"}
        for shade in SHADES:
            pixels = np.full((size[1], size[0], 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def shades(past: object) -> list[int]:
    """Which frames a (1, T, 1, H, W) tensor in [0, 1] shows."""
    means = np.asarray(past).mean((0, 2, 3, 4)) * 255
    assert np.abs(means[:, None] - SHADES).min(1).max() < 2.5
    return [int(np.abs(m - SHADES).argmin()) for m in means]


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
@pytest.mark.parametrize(("every", "expected"), [(1, [36, 37, 38, 39]), (3, [30, 33, 36, 39]), (4, [24, 28, 32, 36])])
def test_the_last_frames_of_a_video_are_read(
    suffix: str, every: int, expected: list[int], spec: ModelSpec, tmp_path: Path
) -> None:
    source = room.read(record(tmp_path / f"a{suffix}"), spec, 4, room.ReadingOptions(resize=True, every=every))
    assert source.past.shape == (1, 4, 1, 16, 16)
    assert shades(source.past) == expected


def test_a_video_is_forecast_like_its_frames(forecaster: Forecaster, tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", (16, 16))
    images = list(read_video(path))
    for ours, theirs in zip(forecaster.rollout(str(path), 6), forecaster.rollout(images, 6), strict=True):
        assert ours.mode == "L"
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_sizes_come_back_unless_asked_otherwise(forecaster: Forecaster, tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", (32, 24))
    own, back, small = (forecaster.predict(path, resize=resize) for resize in (False, None, True))
    assert [answer[0].size for answer in (own, back, small)] == [(32, 24), (32, 24), (16, 16)]
    for large, image in zip(back, small, strict=True):
        np.testing.assert_array_equal(np.asarray(large), np.asarray(image.resize((32, 24), Image.Resampling.BICUBIC)))
    coarser = create(forecaster.spec.replace(n_s=4))
    odd = coarser.predict(record(tmp_path / "odd.avi", (38, 24)), resize=False)
    assert [image.size for image in odd] == [(38, 24)] * 4


def test_colour_models_see_colour(spec: ModelSpec, tmp_path: Path) -> None:
    answer = create(spec.replace(channels=3)).predict(record(tmp_path / "a.avi"), resize=True)
    assert {image.mode for image in answer} == {"RGB"}
    with pytest.raises(FramesError, match="this model has 2 channels"):
        create(spec.replace(channels=2)).predict(tmp_path / "a.avi", resize=True)


def test_too_few_frames_and_bad_numbers_are_refused(forecaster: Forecaster, tmp_path: Path) -> None:
    path = record(tmp_path / "a.avi", (16, 16))
    with pytest.raises(FramesError, match=r"a.avi: expected at least 4 past frames, given 3"):
        forecaster.predict(path, every=14)
    for every in (0, -2, 1.5, True):
        with pytest.raises(FramesError, match="every is"):
            forecaster.predict(path, every=every)  # type: ignore[arg-type]


def test_memory_stays_flat_however_long_a_video_is(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Image.Image]] = []
    most = 0

    def endless(path: Path, every: int, **_: object) -> Iterator[Image.Image]:
        nonlocal most
        for _ in range(500):
            image = Image.new("RGB", (16, 16))
            made.append(weakref.ref(image))
            most = max(most, sum(each() is not None for each in made))
            yield image

    gc.collect()
    monkeypatch.setattr("stzoo.frames.reading.moving_pictures", endless)
    room.read(tmp_path / "a.avi", spec, 4)
    assert most <= spec.frames_in + 2
    whole = room.read(tmp_path / "a.avi", spec, 4, whole=True)
    assert whole.past.shape[1] == 500


def test_a_wrong_size_is_found_at_the_first_frame(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = iter([Image.new("RGB", (15, 15)) for _ in range(9)])
    monkeypatch.setattr("stzoo.frames.reading.moving_pictures", lambda path, every, **_: images)
    with pytest.raises(FramesError, match="given 15x15"):
        room.read(tmp_path / "a.avi", spec, None, room.ReadingOptions(resize=False))
    assert len(list(images)) == 8


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_damaged_files_are_named(suffix: str, forecaster: Forecaster, tmp_path: Path) -> None:
    whole = record(tmp_path / f"a{suffix}", (16, 16)).read_bytes()
    for content in (b"", b"no video " * 99, whole[: len(whole) // 2], whole[:200]):
        (tmp_path / f"bad{suffix}").write_bytes(content)
        with pytest.raises(FramesError, match=rf"bad{suffix} is (damaged or no video|cut short)|holds no video"):
            forecaster.predict(tmp_path / f"bad{suffix}")
    with pytest.raises(FramesError, match=r"none\S+ does not exist"):
        forecaster.predict(tmp_path / f"none{suffix}")


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
@pytest.mark.parametrize("codec", ["H.264", "MPEG-4"])
def test_what_is_written_is_read_back(suffix: str, codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if codec == "MPEG-4":
        monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    rng = np.random.default_rng(0)
    blocks = [np.kron(rng.integers(0, 256, (4, 4), np.uint8), np.ones((8, 8), np.uint8)) for _ in range(12)]
    write_video(tmp_path / f"a{suffix}", (Image.fromarray(block) for block in blocks), 0.04)
    with av.open(str(tmp_path / f"a{suffix}")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.codec.name) == (25, "mpeg4" if codec == "MPEG-4" else "h264")
    back = [np.asarray(image.convert("L"), float) for image in read_video(tmp_path / f"a{suffix}")]
    assert len(back) == 12
    for ours, theirs in zip(back, blocks, strict=True):
        assert np.abs(ours - theirs).mean() < 6
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_odd_sizes_gain_a_row_and_a_column(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [Image.new("L", (17, 15), 90)] * 3)
    back = list(read_video(tmp_path / "a.mp4"))
    assert [image.size for image in back] == [(18, 16)] * 3
    assert np.abs(np.asarray(back[0], int) - 90).max() <= 3


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("mine")

    def broken() -> Iterator[Image.Image]:
        yield Image.new("L", (16, 16))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", broken())
    with pytest.raises(FramesError, match="images of"):
        write_video(tmp_path / "a.mp4", [Image.new("L", (16, 16)), Image.new("L", (8, 8))])
    with pytest.raises(FramesError, match="no images"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(FramesError, match=r"cannot write a.mkv"):
        write_video(tmp_path / "a.mkv", [])
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]


def test_without_pyav_the_pip_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path / "a.avi")
    monkeypatch.setitem(sys.modules, "av", None)
    for act in (
        lambda: list(read_video(tmp_path / "a.avi")),
        lambda: write_video(tmp_path / "a.avi", []),
        video.check_video_extra,
    ):
        with pytest.raises(MissingExtraError, match=r'pip install "stzoo\[video\]"'):
            act()
    with pytest.raises(FramesError, match=r"none\.avi does not exist"):  # which PyAV could not help
        list(read_video(tmp_path / "none.avi"))


def test_real_recordings(forecaster: Forecaster) -> None:
    folder = Path(os.environ.get("STZOO_DATA", "")) / "kth"
    if "STZOO_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("set STZOO_DATA to a folder that holds kth/ to run this test")
    for path in (folder / "person01_handclapping_d1_uncomp.avi", folder / "person01_boxing_d2_uncomp.mp4"):
        seen = list(read_video(path, every=5))
        assert {image.size for image in seen} == {(160, 120)}
        source = room.read(path, forecaster.spec, 4, room.ReadingOptions(resize=True, every=5))
        expected = [np.asarray(i.convert("L").resize((16, 16), Image.Resampling.BILINEAR)) / 255 for i in seen[-4:]]
        np.testing.assert_allclose(source.past[0, :, 0].numpy(), expected, atol=1e-6)
        assert forecaster.predict(seen)[0].size == (160, 120)


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and what was asked for there."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()
        thread.join()


SCRIPTS = {
    "an HLS playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
    "an HLS playlist with a key": (
        '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-KEY:METHOD=AES-128,URI="{0}"\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n'
    ),
    "a concat script": "ffconcat version 1.0\nfile {}\n",
    "a concat script without a header": "file '{}'\n",
    "a DASH manifest": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
        '<Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    ),
    "a session description": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    ),
    "a list of images": "{}",
}


@pytest.mark.parametrize("what", SCRIPTS)
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_script_in_disguise_opens_nothing(
    what: str, suffix: str, server: tuple[str, list[str]], forecaster: Forecaster, tmp_path: Path
) -> None:
    address, asked = server
    record(tmp_path / "other.mp4", (16, 16))
    path = tmp_path / f"a{suffix}"
    for target in ("other.mp4", str(tmp_path / "other.mp4"), f"{address}/other.mp4", f"{address}/other.m3u8"):
        path.write_text(SCRIPTS[what].format(target))
        with pytest.raises(FramesError, match=rf"a\{suffix} is damaged or no video"):
            forecaster.predict(path, resize=True)
    assert asked == []


def test_the_scripts_would_work_without_protection(tmp_path: Path) -> None:
    """Else the test above says nothing."""
    record(tmp_path / "other.mp4", (16, 16))
    (tmp_path / "a.mp4").write_text(SCRIPTS["a concat script"].format("other.mp4"))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 40


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("a.mov", "mpeg4", "mov"), ("a.webm", "libvpx", "webm"), ("a.mpg", "mpeg1video", "mpeg"),
        ("a.mpeg", "mpeg2video", "mpegts"), ("a.mpg", "mpeg1video", "mpeg1video"), ("a.m4v", "mpeg4", "m4v"),
    ],
)  # fmt: skip
def test_every_kind_of_video_is_still_read(name: str, codec: str, kind: str, tmp_path: Path) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    with av.open(str(tmp_path / name), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for shade in SHADES[:9]:
            pixels = np.full((32, 32, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    assert len(list(read_video(tmp_path / name))) == 9


def patched(content: bytes, *changes: tuple[bytes, int, int]) -> bytes:
    """With the number so many bytes behind the name of a part of the file set to another."""
    new = bytearray(content)
    for name, behind, number in changes:
        at = new.index(name) + behind
        new[at : at + 4] = struct.pack(">I", number)
    return bytes(new)


def test_frames_that_no_byte_stands_for_are_not_made_room_for(forecaster: Forecaster, tmp_path: Path) -> None:
    """80 million of them in a file of a kilobyte took three gigabytes."""
    path = record(tmp_path / "a.mp4", (16, 16))
    whole = path.read_bytes()
    path.write_bytes(patched(whole, (b"stsz", 8, 1), (b"stsz", 12, 80_000_000), (b"stsc", 12, 80_000_000)))
    with pytest.raises(FramesError, match=r"a\.mp4 is damaged .*stsz claims more than the file can hold"):
        forecaster.predict(path)
    path.write_bytes(patched(whole, (b"udta", 0, int.from_bytes(b"cmov", "big"))))
    with pytest.raises(FramesError, match=r"cmov claims more"):
        forecaster.predict(path)
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    assert len(list(read_video(path))) == 9
    path.write_bytes(patched(path.read_bytes(), (b"trun", 4, 1), (b"trun", 8, 80_000_000)))
    with pytest.raises(FramesError, match=r"trun claims more"):
        forecaster.predict(path)


def test_absurd_sizes_are_refused_before_they_are_decoded(forecaster: Forecaster, tmp_path: Path) -> None:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 16_000, 2_400, "yuv420p"
        frame = av.VideoFrame(16_000, 2_400, "yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(FramesError, match=r"a\.mkv: frames of 16000x2400 pixels; one may have 1 to 33,554,432"):
        forecaster.predict(path, resize=True)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(FramesError, match=r"a\.mp4 is no file"):
        list(read_video(tmp_path / "a.mp4"))
