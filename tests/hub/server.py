"""A web server on loopback that keeps a log and fails on request, and a mirror of files made of it."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = 1 << 14


@dataclass
class Request:
    """One line of the log; `status` and `sent`, the bytes of body that left, are filled in as the answer goes out."""

    origin: str
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes = b""
    status: int = 0
    sent: int = 0


@dataclass(frozen=True)
class Answer:
    """What the server would say without faults. Only a `ranged` answer obeys a Range header."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    ranged: bool = False


@dataclass(frozen=True)
class Fault:
    """How one answer differs from the right one."""

    status: int | None = None  # this instead, with a line of text for a body
    headers: Mapping[str, str | None] = field(default_factory=dict)  # replaced or added; None leaves one out
    body: bytes | None = None  # instead of the file's bytes
    ranges: bool = True  # False: a range is answered by 200 and the whole file
    cut: int | None = None  # the connection ends after so many bytes of body
    reset: bool = False  # ... by a reset, not by an orderly end
    stall: bool = False  # ... or is held open in silence
    rate: int | None = None  # bytes a second


@dataclass
class _Queued:
    method: str
    pattern: str
    fault: Fault
    left: int | None  # None: for good


class LoopbackServer:
    """Answers on one or more origins; a subclass says what, in `answer`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._faults: list[_Queued] = []
        self._hang_ups = 0
        self._lock = threading.Lock()
        self._running: list[ThreadingHTTPServer] = []

    def listen(self, context: ssl.SSLContext | None = None) -> str:
        """Open one more port, and say its origin."""
        running = _Listener(("127.0.0.1", 0), _Handler)
        running.context, running.owner = context, self
        running.origin = f"{'http' if context is None else 'https'}://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        self._running.append(running)
        return running.origin

    def close(self) -> None:
        for running in self._running:
            running.shutdown()
            running.server_close()

    def clear(self) -> None:
        """Forget log and faults."""
        with self._lock:
            self.requests.clear()
            self._faults.clear()
            self._hang_ups = 0

    def fail(self, pattern: str = "*", *, method: str = "GET", times: int | None = 1, **fault: Any) -> None:
        """The next `times` requests whose path matches a shell wildcard go wrong; None: all of them."""
        with self._lock:
            self._faults.append(_Queued(method, pattern, Fault(**fault), times))

    def redirect(self, pattern: str, location: str, *, method: str = "GET", times: int | None = None) -> None:
        self.fail(pattern, method=method, times=times, status=302, headers={"Location": location})

    def hang_up(self, times: int = 1) -> None:
        """The next connections end before a word is said, TLS included."""
        with self._lock:
            self._hang_ups = times

    def hangs_up(self) -> bool:
        with self._lock:
            self._hang_ups -= (due := self._hang_ups > 0)
        return due

    def asked(self, pattern: str = "*", method: str = "GET") -> list[Request]:
        """The log's requests by a method for paths that match."""
        with self._lock:
            return [r for r in self.requests if r.method == method and fnmatchcase(r.path, pattern)]

    def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def record(self, request: Request) -> Fault:
        """Log a request and take the fault that waits for it, if any."""
        with self._lock:
            self.requests.append(request)
            for queued in self._faults:
                if queued.left != 0 and queued.method == request.method and fnmatchcase(request.path, queued.pattern):
                    if queued.left is not None:
                        queued.left -= 1
                    return queued.fault
        return Fault()


class LoopbackMirror(LoopbackServer):
    """Bytes at paths, over https."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.url = self.listen(context)

    def clear(self) -> None:
        super().clear()
        self.files.clear()

    def add(self, path: str, content: bytes) -> str:
        """The address under which `content` can be had from now on."""
        self.files[path] = content
        return self.url + path

    def answer(self, request: Request) -> Answer:
        if request.path not in self.files:
            return Answer(404, {}, b"no such file\n")
        return Answer(200, {"Content-Type": "application/octet-stream"}, self.files[request.path], ranged=True)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    context: ssl.SSLContext | None
    owner: LoopbackServer
    origin: str

    def handle_error(self, *_: object) -> None:
        """Clients that are killed or leave are what these servers are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: _Listener

    def setup(self) -> None:
        if self.server.owner.hangs_up():
            self.request.close()
        if self.server.context is not None:  # here, in the thread of the connection: a slow client delays no other
            self.request.settimeout(self.timeout)
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.connection.close()  # what was wrapped above is not what the listener would close

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.server.origin, self.command, self.path, headers, self._body())
        fault = self.server.owner.record(request)
        if fault.status is None:
            answer = self.server.owner.answer(request)
        else:
            answer = Answer(fault.status, {}, f"fault {fault.status}\n".encode())
        status, out, body = self._ranged(answer, fault, headers.get("range"))
        wanted: dict[str, str | None] = {**out, "Content-Length": str(len(body)), **fault.headers}
        if wanted["Content-Length"] is None:  # then the end of the connection is the end of the body
            wanted["Connection"] = "close"
        request.status = status
        self.send_response(status)
        for name, value in wanted.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(request, body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _ranged(self, answer: Answer, fault: Fault, asked: str | None) -> tuple[int, dict[str, str], bytes]:
        out = dict(answer.headers)
        body = answer.body if fault.body is None else fault.body
        if not answer.ranged:
            return answer.status, out, body
        out["Accept-Ranges"] = "bytes"
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        if match is None or not fault.ranges:
            return answer.status, out, body
        start, stop = int(match[1]), min(len(body), int(match[2]) + 1 if match[2] else len(body))
        if start >= len(body):
            return 416, out | {"Content-Range": f"bytes */{len(body)}"}, b""
        return 206, out | {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}, body[start:stop]

    def _send(self, request: Request, body: bytes, fault: Fault) -> None:
        ends = fault.cut is not None or fault.reset or fault.stall
        stop = min(len(body), fault.cut or 0) if ends else len(body)
        for start in range(0, stop, PIECE):
            piece = body[start : min(start + PIECE, stop)]
            self.wfile.write(piece)
            request.sent += len(piece)
            if fault.rate is not None:
                time.sleep(len(piece) / fault.rate)
        if not ends:
            return
        self.close_connection = True
        if fault.stall:
            select.select([self.connection], [], [], self.timeout)  # readable: the client is gone
        elif fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif isinstance(self.connection, ssl.SSLSocket):
            self.connection.settimeout(1)
            with contextlib.suppress(OSError):
                self.connection.unwrap()
