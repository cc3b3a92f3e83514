"""A proxy that opens tunnels, and notes where to."""

import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loopback_proxy() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the places that clients asked for ("host:port"), as they ask."""
    asked: list[str] = []

    class Tunnel(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += self.request.recv(1)
            place = head.split()[1].decode()
            asked.append(place)
            host, port = place.rsplit(":", 1)
            with socket.create_connection((host, int(port))) as away:
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                ends = {self.request: away, away: self.request}
                while True:
                    for source in select.select(list(ends), [], [])[0]:
                        data = source.recv(1 << 16)
                        if not data:
                            return
                        ends[source].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
