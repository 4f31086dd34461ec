"""HTTP servers for tests of backends, on threads: scripted responses, and a record of the requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Says = Callable[[str, dict[str, Any]], Any]


class Refusal(Exception):
    """The server responds with this status instead of 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class JsonServer:
    """says(path, body): the response, as JSON unless it is bytes; may raise Refusal. connections: opened so far."""

    def __init__(self, says: Says) -> None:
        self.says, self.bodies, self.heads = says, list[dict[str, Any]](), list[dict[str, str]]()
        self.connections = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # sends head and body at once; otherwise the body waits 40 ms for the client's ACK

            def setup(self) -> None:
                super().setup()
                outer.connections += 1

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.heads.append(dict(self.headers))
                status = 200
                try:
                    said = outer.says(self.path, body)
                except Refusal as refusal:
                    status, said = refusal.status, {"error": {"message": str(refusal)}}
                content = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@contextmanager
def serving(says: Says) -> Iterator[JsonServer]:
    server = JsonServer(says)
    try:
        yield server
    finally:
        server.close()
