"""Ends requests that bring too few bytes, also while a single read, a handshake or a header line is waited for.

A timeout of a socket begins anew with every byte, so a server that sends a byte a second is never late. Here a thread
looks at what has come in all, and shuts the connection down, which ends whatever waits for it.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any

from requests import Response, Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool


class Watch:
    """Looks after the requests of one session, one at a time: ``with watch: ...`` around each.

    Attributes:
        count: bytes that have come; whoever reads them adds them.
        tripped: whether the request was ended because it was too slow.
    """

    def __init__(self, slowest: float, window: float):
        """A request must bring `slowest` bytes a second, on average over each `window` of seconds."""
        self.count, self.tripped = 0, False
        self._slowest, self._window = slowest, window
        self._connections: list[Any] = []
        self._done = threading.Event()

    def session(self) -> Session:
        """A session whose https connections this object can end."""
        session = _Session()
        session.mount("https://", _Adapter(self._connections))
        return session

    def __enter__(self) -> Watch:
        self.tripped, self._done = False, threading.Event()
        threading.Thread(target=self._look, args=(self._done,), daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._done.set()

    def _look(self, done: threading.Event) -> None:
        before = self.count
        while not done.wait(self._window):
            if self.count - before < self._slowest * self._window:
                self.tripped = True
                for connection in self._connections:
                    connection.shut_down()
                return
            before = self.count


class _Session(Session):
    """Follows no redirect, and does not prepare to, for which requests would read the whole body of each."""

    def get_redirect_target(self, resp: Response) -> str | None:
        return None


class _Adapter(HTTPAdapter):
    """Uses connections that are added to a list when they are opened."""

    def __init__(self, opened: list[Any]):
        class Connection(_Connection):
            def connect(self) -> None:
                opened.append(self)
                super().connect()

        class Pool(HTTPSConnectionPool):
            ConnectionCls = Connection

        self._pool = Pool
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **named: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **named)
        if str(proxy).lower().startswith("http"):  # one for SOCKS has connections of its own kind
            self._watch(manager)
        return manager

    def _watch(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": self._pool}


class _Connection(HTTPSConnection):
    _raw: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        """The connected socket, before TLS. While TLS begins, it is taken apart, so that only a copy can end it."""
        made = super()._new_conn()
        self._raw = made.dup()
        return made

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            raw, self._raw = self._raw, None
            if raw is not None:
                raw.close()

    def shut_down(self) -> None:
        """End the connection, whatever another thread does with it at this moment."""
        for each in (self._raw, self.sock):
            if each is not None:
                with suppress(OSError):
                    socket.socket.shutdown(each, socket.SHUT_RDWR)  # that of TLS would first take itself apart
