"""`stzoo live`: a file that is fed in real time, a stream on loopback, and what cannot be opened."""

import errno
import io
import itertools
import os
import signal
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stzoo.cli import main
from stzoo.forecaster import Forecaster
from stzoo.frames.images import read_images, write_images
from stzoo.live import running, sources
from stzoo.live.sources import Feed, Origin, find_origin

av = pytest.importorskip("av", reason="the extra `video` is not installed")

from stzoo.frames.video import read_video, write_video  # noqa: E402


def pictures(count: int, size: int = 16) -> list[Image.Image]:
    """Flat pictures of rising shades."""
    return [Image.new("RGB", (size, size), (4 * i + 20,) * 3) for i in range(count)]


@pytest.fixture
def model(forecaster: Forecaster, tmp_path: Path) -> list[str]:
    forecaster.save_pretrained(tmp_path / "model")
    return ["--model", str(tmp_path / "model")]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """0.6 seconds at 50 frames a second."""
    write_video(tmp_path / "in.mp4", pictures(30), 0.02)
    return tmp_path / "in.mp4"


class Stream(BaseHTTPRequestHandler):
    """As cameras do: one JPEG after the other in a multipart answer, until `count` were sent."""

    count, hang, interval = 20, False, 0.01

    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://user:secret@127.0.0.1:9/stream?token=secret")
            self.end_headers()
            return
        if self.path == "/playlist":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
            return
        if self.path != "/stream":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for picture in pictures(self.count):
            jpeg = io.BytesIO()
            picture.save(jpeg, "JPEG")
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.tell()}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg.getvalue() + b"\r\n")
            time.sleep(self.interval)
        if self.hang:
            time.sleep(3)

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing if a reader has gone away: standard error is that of the command that is tested."""


@contextmanager
def serving(handler: type[Stream]) -> Iterator[str]:
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_file_plays_in_real_time(recording: Path) -> None:
    start = time.monotonic()
    with Feed(find_origin(str(recording)), every=2, keep=99) as feed:
        taken: list[tuple[int, Image.Image]] = []
        while len(taken) < 15:
            taken += feed.take(1)
        with pytest.raises(EOFError):
            feed.take(1)
    assert time.monotonic() - start >= 14 / 25  # the last of the 15 pictures comes so late
    assert feed.rate == pytest.approx(25)
    assert [number for number, _ in taken] == list(range(15))
    assert all(abs(np.asarray(each).mean() - (8 * n + 20)) < 3 for n, each in taken)


def test_a_file_is_played_upright(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [Image.new("L", (48, 32))] * 2, 0.02)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    at = content.find(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # a quarter turn
    (tmp_path / "a.mp4").write_bytes(content)
    with Feed(find_origin(str(tmp_path / "a.mp4"))) as feed:
        feed._thread.join()
        assert {image.size for _, image in feed.take(0)} == {(32, 48)}
    assert feed.rate == pytest.approx(50)


def test_only_the_newest_pictures_are_kept(recording: Path) -> None:
    with Feed(find_origin(str(recording)), keep=4) as feed:
        feed._thread.join()
        assert [number for number, _ in feed.take(0)] == [26, 27, 28, 29]
    assert feed.arrived == 30


def test_a_recording_holds_the_newest_frame_and_the_last_of_its_forecast(
    model: list[str], recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ahead.mp4"
    assert main(["live", str(recording), *model, "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "30 frames in" in said
    assert "in.mp4 ended after 30 frames: " in said
    shown = list(read_video(out))
    assert {image.size for image in shown} == {(32, 16)}
    assert abs(np.asarray(shown[-1])[:, :16].mean() - (4 * 29 + 20)) < 8  # the newest frame of all
    assert 1 <= len(shown) <= 40


def test_each_forecast_goes_into_a_folder(
    model: list[str], recording: Path, forecaster: Forecaster, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["live", str(recording), *model, "-o", str(out), "--steps", "6"]) == 0
    last = sorted(out.iterdir())[-1]
    assert last.name == "00000029.png"
    expected = forecaster.rollout(recording, 6, resize=True)
    found = read_images(last)
    assert [np.asarray(each).tolist() for each in found] == [np.asarray(each).tolist() for each in expected]


def test_a_gif_holds_the_newest_forecast(model: list[str], recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "now.gif"
    assert main(["live", str(recording), *model, "-o", str(out), "--seconds", "0.4", "--every", "2"]) == 0
    with Image.open(out) as image:
        assert image.size == (16, 16)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "model", "now.gif"]


def test_a_stream_in_the_network(model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Stream) as url:
        assert main(["live", f"{url}/stream", *model, "-o", str(tmp_path / "out")]) == 0
    assert f"{url}/stream ended after 20 frames" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir())[-1] == "00000019.png"


def test_a_stream_that_stalls_is_an_error_and_the_recording_is_whole(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "STALL", 0.5)
    hanging = type("Hanging", (Stream,), {"hang": True, "count": 12})
    out = tmp_path / "ahead.mp4"
    with serving(hanging) as url:
        assert main(["live", f"{url}/stream", *model, "-o", str(out)]) == 2
    assert "0.5 seconds" in capsys.readouterr().err
    assert len(list(read_video(out))) >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_whole_file(
    number: int, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = type("Endless", (Stream,), {"count": 50, "interval": 0.05})
    out = tmp_path / "ahead.mp4"
    usual = running.side_by_side

    def and_then_stop(moment: running.Moment) -> Image.Image:
        if moment.number < 49 and signal.getsignal(number) is not signal.default_int_handler:
            os.kill(os.getpid(), number)
        return usual(moment)

    monkeypatch.setattr(running, "side_by_side", and_then_stop)
    before = signal.getsignal(number)
    try:
        signal.signal(number, signal.SIG_IGN)  # if the command did not hear it, the test goes on and fails
        with serving(endless) as url:
            assert main(["live", f"{url}/stream", *model, "-o", str(out)]) == 0
    finally:
        signal.signal(number, before)
    assert "stopped: " in capsys.readouterr().out
    assert len(list(read_video(out))) >= 1


def test_what_cannot_be_opened_is_told_in_one_sentence(
    model: list[str], recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", str(tmp_path / "out")]
    with serving(Stream) as url:
        for source, message in (
            ("7", "there is no camera 7, or it is in use, or this user may not open it"),
            (str(tmp_path / "none.mp4"), r"none.mp4 does not exist"),
            ("ftp://user:secret@host/a.ts", "'ftp://host/a.ts' is not opened; an address begins with http://"),
            ("file:///etc/passwd", "is not opened"),
            ("rtsp://user:secret@127.0.0.1:9/a", "rtsp://127.0.0.1:9/a: "),
            (f"{url}/absent", "/absent answers 404"),
            (f"{url}/elsewhere", "leads on to http://127.0.0.1:9/stream, which is not opened by itself"),
            (f"{url}/playlist", "playlists are not followed"),
        ):
            assert main(["live", source, *model, *out]) == 2
            said = capsys.readouterr().err
            assert message in said
            assert "secret" not in said
            assert said.count("\n") == 1
    write_video(tmp_path / "short.mp4", pictures(3), 0.02)
    assert main(["live", str(tmp_path / "short.mp4"), *model, *out]) == 2
    assert "short.mp4 ended after 3 frames: no forecast, since the model reads 4" in capsys.readouterr().err
    assert main(["live", str(recording), *model]) == 2
    assert "-o OUT" in capsys.readouterr().err
    assert main(["live", str(recording), *model, "-o", str(tmp_path / "a.npy")]) == 2
    assert "cannot write a.npy" in capsys.readouterr().err


def fed(feed: Feed, numbers: range) -> None:
    """Pictures come, without a thread that reads them."""
    for number in numbers:
        feed._add(pictures(number + 1)[-1])


def test_pictures_that_the_model_is_too_slow_for_are_dropped_and_the_newest_are_forecast(
    forecaster: Forecaster,
) -> None:
    """Six come in while a forecast of four is made, so two are never read, and the forecast is from the last four."""
    feed, stop = Feed(Origin("address", "a", "a"), keep=4), threading.Event()
    pace = running.Pace(feed, print, stop)
    fed(feed, range(4))
    found = []
    for moment in running.moments(feed, forecaster.live(), steps=2, pace=pace, stop=stop):
        found.append(moment)
        if moment.number == 3:
            fed(feed, range(4, 10))
        elif moment.number == 9:
            fed(feed, range(10, 11))
            stop.set()
    assert [moment.number for moment in found] == [3, 9, 10]  # the last one after the stop
    assert (pace.forecasts, feed.arrived, feed.dropped) == (3, 11, 2)
    assert pace.summary(1) == "stopped: 3 forecasts of 1 frame"
    assert "11 frames in, 3 forecasts, 2 frames dropped" in pace.line()
    expected = forecaster.rollout(pictures(11)[7:], 2)
    assert [np.asarray(e).tolist() for e in found[2].forecast] == [np.asarray(e).tolist() for e in expected]


def test_seconds_are_those_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(sources, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now)}))
    feed = Feed(Origin("address", "a", "a"), keep=2, seconds=1)
    now = 105.0  # until there is a picture, no time passes
    assert feed.take(0) == []
    fed(feed, range(2))
    now = 105.9
    fed(feed, range(1))
    now = 106.0
    fed(feed, range(1))
    assert [number for number, _ in feed.take(0)] == [1, 2]
    with pytest.raises(EOFError):
        feed.take(0)
    assert (feed.arrived, feed.dropped, feed.reason) == (3, 1, "time is over after 1 second")


def test_seconds_of_a_file_are_counted_in_its_frames(
    model: list[str], recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["live", str(recording), *model, "-o", str(out), "--seconds", "0.2", "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert " s: 10 frames in, " in said
    assert "time is over after 0.2 seconds: " in said
    assert sorted(out.iterdir())[-1].name == "00000009.png"


def test_the_model_is_warm_before_the_source_is_opened(
    model: list[str],
    recording: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order = []
    warm_up, enter = running.warm_up, Feed.__enter__
    monkeypatch.setattr(running, "warm_up", lambda *given: (order.append("warm"), warm_up(*given)))
    monkeypatch.setattr(Feed, "__enter__", lambda feed: (order.append("open"), enter(feed))[1])
    out = tmp_path / "ahead.mp4"
    assert main(["live", str(recording), *model, "-o", str(out), "--seconds", "0.08", "--steps", "1"]) == 0
    assert order == ["warm", "open"]
    printed = capsys.readouterr()
    assert "4 frames in, 1 forecast, 0 frames dropped" in printed.out
    assert f"time is over after 0.08 seconds: 1 forecast of 1 frame -> {out}" in printed.out
    assert not printed.err


def test_a_warm_model_has_seen_nothing(forecaster: Forecaster) -> None:
    live = forecaster.live()
    with warnings.catch_warnings(action="error"):
        running.warm_up(live, forecaster.spec)
    assert live.needed == forecaster.spec.frames_in


def test_lines_come_while_something_else_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_SAY", 0.01)
    lines: list[str] = []
    feed, stop = Feed(Origin("file", "a", "a")), threading.Event()
    with running.Pace(feed, lines.append, stop):
        time.sleep(0.2)
    assert len(lines) >= 2

    def unheard(line: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError), running.Pace(feed, unheard, stop):
        assert stop.wait(5)


def test_a_recording_is_small(model: list[str], tmp_path: Path) -> None:
    write_video(tmp_path / "large.mp4", pictures(4, 700), 0.02)
    out = tmp_path / "ahead.mp4"
    assert main(["live", str(tmp_path / "large.mp4"), *model, "-o", str(out), "--steps", "1"]) == 0
    assert [image.size for image in read_video(out)] == [(1280, 640)]


def test_pictures_are_as_large_as_the_recording_needs(forecaster: Forecaster) -> None:
    spec, mp4 = forecaster.spec, Path("a.mp4")
    assert running.longest_side(mp4, spec, None) == running.longest_side(None, spec, None) == 640
    assert running.longest_side(mp4, spec.replace(width=1024), None) == 1024
    assert running.longest_side(mp4, spec, False) is running.longest_side(Path("a.gif"), spec, None) is None
    feed, stop = Feed(Origin("file", "a", "a"), keep=4), threading.Event()
    for shade in pictures(4, 1):
        feed._add(shade.resize((1920, 1081)))
    feed.finish("over")
    pace = running.Pace(feed, print, stop)
    (moment,) = running.moments(feed, forecaster.live(), steps=1, pace=pace, stop=stop, longest=640)
    assert moment.newest.size == moment.forecast[0].size == (640, 360)


def moments_of(count: int) -> list[running.Moment]:
    return [running.Moment(n, each, [each], n / 100) for n, each in enumerate(pictures(count))]


def test_forecasts_do_not_wait_for_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, encoding = moments_of(20), threading.Event()
    kept: list[Image.Image] = []

    def encode(path: Path, images: Iterator[Image.Image], seconds: float, *, at_once: bool) -> None:
        assert encoding.wait(5)
        kept.extend(images)

    def coming() -> Iterator[running.Moment]:
        yield from given
        encoding.set()  # all were taken before the first was encoded

    monkeypatch.setattr(running, "write_video", encode)
    running.write_moments(tmp_path / "a.mp4", coming(), lambda: 100.0)
    assert len(kept) == 3  # of 0.19 seconds, ten a second
    assert kept[-1].getpixel((0, 0)) == given[-1].newest.getpixel((0, 0))


def test_a_recording_that_cannot_be_written_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*_: object, at_once: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(running, "write_video", encode)
    endless = (moments_of(1)[0] for _ in itertools.count())
    with pytest.raises(OSError, match=r"a\.mp4 cannot be written: No space left"):
        running.write_moments(tmp_path / "a.mp4", endless, lambda: None)


def test_an_animation_plays_at_its_own_pace(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "screen.gif", pictures(8), 0.02)
    start = time.monotonic()
    assert main(["live", str(tmp_path / "screen.gif"), *model, "-o", str(tmp_path / "out")]) == 0
    assert time.monotonic() - start >= 7 * 0.02
    assert "screen.gif ended after 8 frames" in capsys.readouterr().out
    assert sorted((tmp_path / "out").iterdir())[-1].name == "00000007.png"


def test_what_does_not_play_and_the_source_itself_are_refused(
    model: list[str], recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(1)[0].save(tmp_path / "still.jpg")
    np.save(tmp_path / "a.npy", np.zeros(3))
    for name in ("still.jpg", "a.npy"):
        assert main(["live", str(tmp_path / name), *model, "-o", str(tmp_path / "out")]) == 2
        assert f"{name} is no video that plays; 'stzoo predict'" in capsys.readouterr().err
    assert main(["live", str(recording), *model, "-o", str(recording)]) == 2
    assert "is the source itself" in capsys.readouterr().err


def test_a_picture_is_drawn_for_a_terminal() -> None:
    text = running.drawn(Image.new("RGB", (64, 32), (255, 0, 9)), 20, 13)
    assert text.count("\n") == 4
    assert text.count("\x1b[38;2;255;0;9;48;2;255;0;9m\u2580") == 5 * 20
