"""`stzoo live`: a file that is fed in real time, a stream on loopback, and what cannot be opened."""

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stzoo.cli import main
from stzoo.forecaster import Forecaster
from stzoo.frames.images import read_images
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


@contextmanager
def serving(handler: type[Stream]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
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


def test_pictures_that_the_model_is_too_slow_for_are_dropped(forecaster: Forecaster, tmp_path: Path) -> None:
    """Six come in while a forecast of four is made, so two are never read, and the forecast is from the last four."""
    shades = pictures(20)
    feed = Feed(Origin("file", "a", "a"), keep=4)
    batches = [range(4), range(6, 10), range(10, 11)]

    def take(_: float) -> list[tuple[int, Image.Image]]:
        if not batches:
            raise EOFError
        return [(n, shades[n]) for n in batches.pop(0)]

    feed.take = take  # type: ignore[method-assign]
    pace = running.Pace(print)
    found = list(
        running.moments(
            feed, forecaster.live(), steps=2, seconds=None, pace=pace, stop=threading.Event(), ended=running.Ended()
        )
    )
    assert [moment.number for moment in found] == [3, 9, 10]
    assert (pace.forecasts, pace.dropped) == (3, 2)
    expected = forecaster.rollout(shades[7:11], 2)
    assert [np.asarray(e).tolist() for e in found[2].forecast] == [np.asarray(e).tolist() for e in expected]


def test_a_picture_is_drawn_for_a_terminal() -> None:
    text = running.drawn(Image.new("RGB", (64, 32), (255, 0, 9)), 20, 13)
    assert text.count("\n") == 4
    assert text.count("\x1b[38;2;255;0;9;48;2;255;0;9m\u2580") == 5 * 20
