"""A language client that speaks raw JSON-RPC with a server process, and can send invalid messages."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
MODERN: dict[str, Any] = {
    "general": {"positionEncodings": ["utf-16"]},
    "textDocument": {"inlineCompletion": {"dynamicRegistration": False}},
    "window": {"workDoneProgress": True},
}


class Gone(Exception):
    """The server ended or closed its output."""


class Client:
    """Starts `python -m lsp` or another `server`. `received` holds all messages of the server except responses."""

    def __init__(self, environment: dict[str, str], *arguments: str, server: tuple[str, ...] = ("-m", "lsp")) -> None:
        command = [sys.executable, *server, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment
        )
        self.received: list[dict[str, Any]] = []
        self.answers: dict[Any, dict[str, Any]] = {}
        self.settings: dict[str, Any] | None = None
        self.choice: str | None = None  # the answer to questions of the server
        self.applies = True  # whether edits of the server are applied
        self.log: list[str] = []
        self.number = 0
        self.versions: dict[str, int] = {}
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._together: list[bytes] | None = None
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._read_log, daemon=True).start()

    def _read(self) -> None:
        out = self.process.stdout
        assert out is not None
        while True:
            length = 0
            while (line := out.readline()).strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if not line:
                break
            self._messages.put(json.loads(out.read(length)))
        self._messages.put(None)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.decode(errors="replace").rstrip())

    def send_bytes(self, body: bytes) -> None:
        message = b"Content-Length: %d\r\n\r\n" % len(body) + body
        if self._together is not None:
            self._together.append(message)
            return
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(message)
            self.process.stdin.flush()
        except OSError as error:
            raise Gone("\n".join(self.log)) from error

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is sent within it arrives at once, so that the server has answered none of it before the last one."""
        self._together = messages = []
        yield
        self._together = None
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(messages))
        self.process.stdin.flush()

    def send(self, message: dict[str, Any]) -> None:
        self.send_bytes(json.dumps({"jsonrpc": "2.0", **message}).encode())

    def notify(self, method: str, params: Any = None) -> None:
        self.send({"method": method, "params": params})

    def start_request(self, method: str, params: Any = None) -> int:
        self.number += 1
        self.send({"id": self.number, "method": method, "params": params})
        return self.number

    def request(self, method: str, params: Any = None, timeout: float = PATIENCE_S) -> Any:
        """The result. Raises LookupError with the code of an error response."""
        return self.result(self.start_request(method, params), timeout)

    def result(self, identifier: int, timeout: float = PATIENCE_S) -> Any:
        self.wait(lambda: identifier in self.answers, timeout)
        answer = self.answers.pop(identifier)
        if "error" in answer:
            raise LookupError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def wait(self, condition: Callable[[], bool], timeout: float = PATIENCE_S) -> None:
        """Processes messages until the condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            try:
                message = self._messages.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError("\n".join(self.log[-20:])) from None
            if message is None:
                raise Gone("\n".join(self.log))
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if "method" not in message:
            self.answers[message["id"]] = message
            return
        self.received.append(message)
        if "id" in message:
            result: Any = None
            if message["method"] == "workspace/configuration":
                result = [self.settings for _ in message["params"]["items"]]
            elif message["method"] == "window/showMessageRequest" and self.choice is not None:
                result = {"title": self.choice}
            elif message["method"] == "workspace/applyEdit":
                result = {"applied": self.applies}
            self.send({"id": message["id"], "result": result})

    def initialize(self, capabilities: Any = None, settings: Any = None, folder: Path | None = None) -> dict[str, Any]:
        params = {
            "processId": None,
            "rootUri": folder.as_uri() if folder else None,
            "capabilities": MODERN if capabilities is None else capabilities,
            "initializationOptions": settings,
        }
        result: dict[str, Any] = self.request("initialize", params)
        self.notify("initialized", {})
        return result

    def state(self) -> str | None:
        """The last engine state that the server reported."""
        states = [m["params"]["state"] for m in self.received if m["method"] == "didChangeStatus"]
        return states[-1] if states else None

    def wait_until_ready(self, timeout: float = PATIENCE_S) -> None:
        self.wait(lambda: self.state() in ("ready", "failed"), timeout)
        assert self.state() == "ready", self.received[-1]

    def open(self, uri: str, text: str, language: str = "python") -> None:
        self.versions[uri] = 1
        document = {"uri": uri, "languageId": language, "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})

    def change(self, uri: str, *changes: dict[str, Any]) -> None:
        self.versions[uri] += 1
        document = {"uri": uri, "version": self.versions[uri]}
        self.notify("textDocument/didChange", {"textDocument": document, "contentChanges": list(changes)})

    def type(self, uri: str, line: int, character: int, text: str) -> None:
        position = {"line": line, "character": character}
        self.change(uri, {"range": {"start": position, "end": position}, "text": text})

    def start_inline(self, uri: str, line: int, character: int, invoked: bool = False) -> int:
        return self.start_request(
            "textDocument/inlineCompletion",
            {
                "textDocument": {"uri": uri},
                "position": {"line": line, "character": character},
                "context": {"triggerKind": 1 if invoked else 2},
            },
        )

    def inline(self, uri: str, line: int, character: int, invoked: bool = False) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.result(self.start_inline(uri, line, character, invoked))["items"]
        return items

    def command(self, name: str, *arguments: Any) -> Any:
        return self.request("workspace/executeCommand", {"command": name, "arguments": list(arguments)})

    def close(self) -> int:
        """Shuts the server down by the protocol and returns its exit code."""
        if self.process.poll() is None:
            self.request("shutdown")
            self.notify("exit")
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
