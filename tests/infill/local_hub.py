"""A hub on this machine that has one file and can be slow, broken, or a proxy with a page of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TRICKLE_S = 1.0  # between two bytes, so that the client does not give up


class Hub(ThreadingHTTPServer):
    """Sends the content up to `pause_at`, then a byte now and then until `complete`, or ends there if `breaks` is set.

    requests: the paths, and the first bytes that were requested.
    """

    daemon_threads = True

    def __init__(self, content: bytes, pause_at: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.pause_at = content, pause_at
        self.complete = threading.Event()
        self.breaks = self.fails = self.ignores_ranges = False
        self.requests: list[tuple[str, int]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def starts(self) -> list[int]:
        return [start for _, start in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        hub, start = self.server, int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        hub.requests.append((self.path, start))
        start = 0 if hub.ignores_ranges else start
        content = b"<html>" if hub.fails else hub.content
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        middle = max(start, hub.pause_at)
        with suppress(OSError):  # the client left
            self.wfile.write(content[start:middle])
            if not hub.breaks:
                while not hub.complete.wait(TRICKLE_S) and middle < len(content):
                    self.wfile.write(content[middle : middle + 1])
                    middle += 1
                self.wfile.write(content[middle:])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def local_hub(content: bytes, pause_at: int) -> Iterator[Hub]:
    with Hub(content, pause_at) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.complete.set()
        hub.shutdown()
