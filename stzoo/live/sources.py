"""Pictures as they come: from a camera, from a stream in the network, or from a file that is played at its own pace.

A thread reads and decodes them and keeps only the newest, so that whoever takes them never falls behind. FFmpeg opens
nothing but what the user named: it gets no protocol beside that of the address, and no format that refers to other
addresses, such as playlists. What comes over http is fetched by `requests`, and redirects are not followed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from stzoo.addresses import scrubbed, without_secrets
from stzoo.errors import FramesError, StzooError, printable
from stzoo.frames.images import ANIMATED, STILL, eight_bit, frame_interval, iterate_images
from stzoo.frames.layout import MAX_PIXELS, check_pixels
from stzoo.frames.reading import kind_of
from stzoo.frames.video import check_video_extra, read_video, video_clock
from stzoo.spec import shown

SCHEMES = ("http", "https", "rtsp", "udp")
STALL = 10.0  # seconds without a picture, after which a source counts as dead
_LATE = 1.0  # seconds by which a file may be late, if decoding it takes so long
_UNTIMED = 10.0  # pictures a second of an animation that does not say how long it shows them
_FORMATS = (
    "mpjpeg,mjpeg,jpeg_pipe,mpegts,flv,matroska,webm,mov,mp4,avi,mpeg,ogg,h264,hevc"  # that hold video themselves
)
_PROTOCOLS = {"rtsp": "rtsp,rtp,tcp,udp", "udp": "udp"}
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}
_MOST_BAD = 100  # packets in a row that cannot be decoded; a few are lost in every network


@dataclass(frozen=True)
class Origin:
    """What the user named.

    Attributes:
        kind: where pictures come from.
        name: what messages call it, without secrets.
        place: what is opened: the address, the path, or the camera's number.
    """

    kind: str  # "camera", "address" or "file"
    name: str
    place: str


def find_origin(source: str) -> Origin:
    """What `source` names: a camera by its number or its /dev/video path, an address, or a video or an animation.

    Raises:
        FramesError: the address is of a kind that is not opened, or there is no such file, or it does not play.
        MissingExtraError: PyAV is not installed.
    """
    if source.isascii() and source.isdecimal():
        origin = Origin("camera", f"camera {int(source)}", str(int(source)))
    elif source.startswith("/dev/video") and source.removeprefix("/dev/video").isdecimal():
        origin = Origin("camera", f"camera {source}", source.removeprefix("/dev/video"))
    elif "://" in source:
        try:
            parts = urlsplit(source)
            known = parts.scheme in SCHEMES and bool(parts.hostname or parts.scheme == "udp")
        except ValueError:
            known = False
        if not known:
            raise FramesError(f"{shown(without_secrets(source))} is not opened; an address begins with {_schemes()}")
        origin = Origin("address", without_secrets(source), source)
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise FramesError(f"{path} {what}; name a camera's number, a video file, or an address: {_schemes()}")
        suffix = path.suffix.lower()
        if kind_of(path) != "pictures" or (suffix in STILL and suffix not in ANIMATED):
            raise FramesError(f"{path} is no video that plays; 'stzoo predict' forecasts files of other kinds")
        origin = Origin("file", str(path), str(path))
    check_video_extra()
    return origin


def _schemes() -> str:
    return ", ".join(f"{scheme}://" for scheme in SCHEMES)


def counted(number: float, noun: str) -> str:
    """Such as "1 frame" and "2 frames"."""
    return f"{number:.12g} {noun}{'' if number == 1 else 's'}"


class Feed:
    """The newest pictures of a source. It reads inside a ``with`` block, in a thread of its own.

    Attributes:
        arrived: how many pictures there were so far; with `every` only those that count.
        dropped: how many of these gave way to newer ones before anybody took them.
        rate: pictures a second, as the source claims; None if it does not say.
        reason: why it ended; empty before.
        error: what it failed with, if it did: it cannot be opened or read, or no picture came for `STALL` seconds.
    """

    rate: float | None

    def __init__(self, origin: Origin, *, every: int = 1, keep: int = 10, seconds: float | None = None):
        """Args:
        origin: what is read.
        every: only the pictures 0, every, 2 * every, ... count.
        keep: how many of the newest are kept.
        seconds: how much of the source is read, from its first picture on; None reads all of it.
        """
        self.origin, self.arrived, self.dropped, self.rate = origin, 0, 0, None
        self.reason, self.error = "", None
        self._every, self._seconds = every, seconds
        self._waiting: deque[tuple[int, Image.Image]] = deque(maxlen=keep)
        self._change = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="stzoo-live", daemon=True)
        self._first: float | None = None  # when the first picture came
        self._last = time.monotonic()  # when the newest one came

    error: StzooError | None

    def __enter__(self) -> Feed:
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(1.0)  # a read from the network may hang for longer; then the thread ends with the process

    def take(self, seconds: float) -> list[tuple[int, Image.Image]]:
        """The pictures that came since the last call, each with its number; waits up to `seconds` for one.

        Numbers have a gap where more came than are kept. The list is empty if none came.

        Raises:
            EOFError: the source has ended (`reason`) or failed (`error`), and there are no more pictures.
        """
        with self._change:
            self._end_in_time()
            if not self._waiting and not self.reason:
                self._change.wait(seconds)
            if self._waiting:
                taken = list(self._waiting)
                self._waiting.clear()
                return taken
            if not self.reason and time.monotonic() - self._last > STALL:
                self._fail(f"no picture came for {STALL:g} seconds; is it still running, and connected?")
            if self.reason:
                raise EOFError
            return []

    def finish(self, reason: str) -> None:
        """End the source here, for this reason. What waits can still be taken. It changes nothing if it has ended."""
        with self._change:
            self.reason = self.reason or reason
            self._stop.set()
            self._change.notify_all()

    def _fail(self, message: str) -> None:
        with self._change:
            if not self.reason:
                self.error = FramesError(f"{self.origin.name}: {message}")
                self.finish("failed")

    def _end_in_time(self) -> None:
        """Finish if so many seconds of the source are over."""
        if self._seconds is not None and self._first is not None:
            late = _LATE if self.origin.kind == "file" else 0.0  # whose pictures have times of their own, see `_played`
            if time.monotonic() - self._first >= self._seconds + late:
                self.finish(f"time is over after {counted(self._seconds, 'second')}")

    def _read(self) -> None:
        try:
            with closing(self._pictures()) as pictures:
                for picture in pictures:
                    self._add(picture)
                    if self._stop.is_set():
                        break
        except StzooError as error:
            with self._change:
                if not self.reason:
                    self.error = error
        except Exception as error:  # PyAV and requests raise errors of many kinds
            self._fail(_reason(error))
        self.finish(f"{self.origin.name} ended after {counted(self.arrived, 'frame')}")

    def _add(self, picture: Image.Image) -> None:
        """The next picture has come."""
        with self._change:
            self._last = time.monotonic()
            self._first = self._last if self._first is None else self._first
            self._end_in_time()
            if not self.reason:
                self.dropped += len(self._waiting) == self._waiting.maxlen
                self._waiting.append((self.arrived, picture))
                self.arrived += 1
                self._change.notify_all()

    def _pictures(self) -> Generator[Image.Image, None, None]:
        if self.origin.kind == "file":
            yield from self._played(Path(self.origin.place))
            return
        with _opened(self.origin) as container:
            if not container.streams.video:
                raise FramesError(f"{self.origin.name} holds no video")
            stream = container.streams.video[0]
            if stream.average_rate:
                self.rate = float(stream.average_rate) / self._every
            for number, frame in enumerate(_decoded(container, stream)):
                if self._stop.is_set():
                    return
                if number % self._every == 0:
                    check_pixels(frame.width, frame.height)
                    yield frame.to_image()

    def _played(self, path: Path) -> Iterator[Image.Image]:
        """The pictures of a video or an animation, each at its time."""
        if path.suffix.lower() in ANIMATED:
            self.rate = 1 / float(frame_interval(path) or 1 / _UNTIMED) / self._every
            shown = (eight_bit(image).convert("RGB") for image in iterate_images(path, self._every))
        else:
            self.rate = float(video_clock(path).rate) / self._every
            shown = read_video(path, self._every)  # type: ignore[assignment]
        start = time.monotonic()
        with closing(shown) as pictures:
            for number, picture in enumerate(pictures):
                if self._seconds is not None and number / self.rate >= self._seconds:
                    self.finish(f"time is over after {counted(self._seconds, 'second')}")
                if self._stop.wait(max(0.0, start + number / self.rate - time.monotonic())):
                    return
                yield picture


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The frames of a stream. A packet that cannot be decoded is passed over."""
    import av

    bad = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            bad += 1
            if bad > _MOST_BAD:
                raise
            continue
        bad = 0 if frames else bad
        yield from frames


@contextmanager
def _opened(origin: Origin) -> Iterator[Any]:
    """PyAV's container of a camera or an address."""
    import av

    if origin.kind == "camera":
        form, name = _camera(origin.place)
        try:
            container: Any = av.open(name, format=form, timeout=STALL)
        except (OSError, ValueError) as error:
            raise FramesError(
                f"there is no {origin.name}, or it is in use, or this user may not open it: {_reason(error)}"
            ) from None
        with container:
            yield container
        return
    scheme = urlsplit(origin.place).scheme
    if scheme in _PROTOCOLS:
        options = _limits(_PROTOCOLS[scheme]) | {"format_whitelist": f"rtsp,{_FORMATS}", "rtsp_transport": "tcp"}
        with av.open(origin.place, options=options, timeout=STALL) as container:
            yield container
        return
    with _fetched(origin) as file:
        options = _limits("none") | {"format_whitelist": _FORMATS}
        with av.open(file, options=options, io_open=_nothing_else, buffer_size=4096) as container:
            yield container


def _limits(protocols: str) -> dict[str, str]:
    return {"protocol_whitelist": protocols, "max_pixels": str(MAX_PIXELS * 9 // 8)}


def _nothing_else(url: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError("it refers to another address, which is not opened")


def _camera(number: str) -> tuple[str, str]:
    """FFmpeg's format and name of a camera on this system."""
    if sys.platform == "win32":
        from av.device import enumerate_input_devices

        cameras = [each for each in enumerate_input_devices("dshow") if "video" in each.media_types]
        if int(number) >= len(cameras):
            raise FramesError(f"there is no camera {number}; this machine has {len(cameras)}, counted from 0")
        return "dshow", f"video={cameras[int(number)].name}"
    form, name = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    return form, name.format(number)


class _Body:
    """The body of an answer as a file that cannot go back. Small pieces, so that no picture waits for the next one."""

    def __init__(self, answer: Any):
        self._pieces = answer.iter_content(4096)
        self._rest = b""

    def read(self, count: int) -> bytes:
        self._rest = self._rest or next(self._pieces, b"")
        piece, self._rest = self._rest[:count], self._rest[count:]
        return piece


@contextmanager
def _fetched(origin: Origin) -> Iterator[_Body]:
    """The body of what an http address answers.

    Raises:
        FramesError: it answers with something else than a stream, or leads elsewhere.
    """
    import requests

    with requests.get(origin.place, stream=True, allow_redirects=False, timeout=STALL) as answer:
        if answer.is_redirect:
            to = without_secrets(answer.headers.get("location", "an address that it does not name"))
            raise FramesError(f"{origin.name} leads on to {to}, which is not opened by itself; name that address")
        if answer.status_code != 200:
            raise FramesError(f"{origin.name} answers {answer.status_code} {printable(answer.reason or '')}")
        yield _Body(answer)


def _reason(error: Exception) -> str:
    """Why something failed, in a few words and without secrets."""
    import av
    import requests

    lost = isinstance(error, requests.ConnectionError)
    if isinstance(error, requests.Timeout | av.error.ExitError) or (lost and "timed out" in str(error)):
        return f"it sent nothing for {STALL:g} seconds"
    if lost:
        return "it cannot be reached, or the connection was lost"
    if isinstance(error, av.error.InvalidDataError):
        return "it sends no video of a kind that is read here; playlists are not followed"
    return scrubbed(getattr(error, "strerror", None) or str(error))[:300]
