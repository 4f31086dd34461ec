"""Servers that answer anything: each part of a valid response replaced by each hostile value, and invalid HTTP.

Whatever a server answers, the request ends in time, with an error in one sentence or a result that is valid JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import pytest
from starlette.testclient import TestClient

from engine.errors import GessoError, InputError
from infill.api.http import error_response
from infill.api.values import findings_to_json
from infill.backends.autoregressive import AutoregressiveBackend, CompletionOptions
from infill.backends.backend import BackendDown, BackendRefused
from infill.backends.gesso import GessoBackend
from infill.backends.remote import MAX_RESPONSE, Address, Remote
from infill.backends.router import BackendRouter, Member
from infill.backends.routes import Routes
from infill.connection import CancellableConnection
from infill.engine_protocol import EngineState
from infill.findings import Finding, LintRequest
from infill.prompts.text_tokens import TextTokens
from infill.request import Candidate, Hole, HoleCompletion, InfillResult
from infill.service.app import make_app
from infill.service.model_engine import ModelEngine
from infill.service.routed import RoutedEngine
from infill.settings import Settings
from tests.infill.backends.servers import JsonServer, serving
from tests.infill.backends.test_backends import FUNCTION, FakeVllm, ask, vllm
from tests.infill.fakes import chat_tokenizer, request
from tests.infill.hostile import HOSTILE, MISSING, Part, changed, parts
from tests.waiting import PATIENCE_S

TIMEOUT_S = 0.3
FOUND = Finding(0, 1, "misspelled", "m", "x", 1.0, ((2, 3),))


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def outcome(call: Callable[[], Any]) -> str:
    """ "refused", or "answered" with a value that is valid JSON. Any other error than a GessoError fails the test."""
    try:
        json.dumps(call(), allow_nan=False, ensure_ascii=False).encode()
    except GessoError as error:
        assert error_response(error).status_code in (400, 502) and "\x1b" not in str(error)
        return "refused"
    return "answered"


@pytest.fixture
def server() -> Iterator[JsonServer]:
    with serving(lambda path, body: None) as running:
        yield running


def attack(server: JsonServer, response: Any, call: Callable[[], Any]) -> None:
    """Calls once for each part and each hostile value; the valid response itself is answered."""
    server.says = lambda path, body: response
    assert outcome(call) == "answered"
    for part in parts(response):
        for hostile in (*HOSTILE, MISSING):
            server.says = lambda path, body: changed(response, part, hostile)  # noqa: B023 - called in this iteration
            outcome(call)


def test_hostile_completions(server: JsonServer) -> None:
    backend = AutoregressiveBackend("coder", Remote("coder", Address(server.url)), CompletionOptions("m"))
    choice = {"text": "total", "logprobs": {"token_logprobs": [-1.0, None]}}
    response = {"choices": [choice], "usage": {"prompt_tokens": 7}}
    attack(server, response, lambda: asdict(ask(backend, request(FUNCTION))))


@pytest.mark.parametrize(
    "change",
    [
        {"text": "\ud800"},
        {"text": None},
        {"text": 3},
        {"logprobs": {"token_logprobs": [10**400]}},
        {"logprobs": {"token_logprobs": [float("nan")]}},
        {"logprobs": {"token_logprobs": [1e308]}},
        {"logprobs": {"token_logprobs": ["-1"]}},
    ],
)
def test_completions_with_unusable_values_are_refused(server: JsonServer, change: dict[str, Any]) -> None:
    backend = AutoregressiveBackend("coder", Remote("coder", Address(server.url)), CompletionOptions("m"))
    server.says = lambda path, body: {"choices": [{"text": "total"} | change]}
    with pytest.raises(BackendRefused, match="does not return OpenAI's completions"):
        ask(backend, request(FUNCTION))


def test_an_endless_text_is_cut(server: JsonServer) -> None:
    backend = AutoregressiveBackend("coder", Remote("coder", Address(server.url)), CompletionOptions("m"))
    server.says = lambda path, body: {"choices": [{"text": "(" * 2_000_000}]}
    assert len(ask(backend, request(FUNCTION, lines="block")).completions[0].text) <= 20_001


def gesso_result() -> dict[str, Any]:
    at = FUNCTION.index("§")
    candidate = Candidate("total", 0.5, True, None, "model", 1)
    completion = HoleCompletion(Hole(at, at), "total", True, None, 0.5, (candidate,))
    result = as_json(asdict(InfillResult((completion,), 1, 2, 3, 4, 5, {"encode": 1.0, "total": 2.0}, "m", 0)))
    result["completions"][0]["candidates"][0]["evidence"] = {"seam": 0.0}  # the other numbers are of the same type
    return result


def test_hostile_results_of_a_gesso_service(server: JsonServer) -> None:
    backend = GessoBackend("team", Remote("team", Address(server.url.removesuffix("/v1"))))
    attack(server, gesso_result(), lambda: asdict(ask(backend, request(FUNCTION))))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (("completions",), []),
        (("completions", 0, "candidates"), []),
        (("completions", 0, "hole", "start"), 0),
        (("completions", 0, "hole", "end"), 10_000),
        (("prompt_tokens",), 10**400),
        (("model",), "\udfff"),
    ],
)
def test_a_result_that_does_not_fit_the_request_is_refused(server: JsonServer, part: Part, value: Any) -> None:
    """A server may write into the hole and nowhere else."""
    backend = GessoBackend("team", Remote("team", Address(server.url.removesuffix("/v1"))))
    server.says = lambda path, body: changed(gesso_result(), part, value)
    with pytest.raises(BackendRefused, match="not a Gesso service"):
        ask(backend, request(FUNCTION))


def test_hostile_findings_of_a_gesso_service(server: JsonServer) -> None:
    backend = GessoBackend("team", Remote("team", Address(server.url.removesuffix("/v1"))))

    def lint() -> Any:
        return findings_to_json(backend.lint(LintRequest("abcdef"), "lint", PATIENCE_S, CancellableConnection()))

    attack(server, as_json(findings_to_json((FOUND,))), lint)
    for range_ in ([-1, 1], [3, 2], [0, 7]):
        start, end = range_
        for finding in (asdict(FOUND) | {"start": start, "end": end}, asdict(FOUND) | {"also": [range_]}):
            server.says = lambda path, body: {"findings": [finding]}  # noqa: B023 - called in this iteration
            with pytest.raises(BackendRefused, match="not a Gesso service"):
                lint()


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> TextTokens:
    return TextTokens.read(chat_tokenizer(tmp_path_factory.mktemp("chat")))


def test_hostile_canvases_of_vllm(server: JsonServer, chat: TextTokens) -> None:
    """In the response to every probe, one value or all values of its lists are hostile."""
    fake, backend = FakeVllm(chat, "total + 1"), vllm(server, chat)

    def says(hostile: Any, part: Part) -> Callable[[str, dict[str, Any]], Any]:
        def respond(path: str, body: dict[str, Any]) -> Any:
            response = fake(path, body)
            (choice,) = response["choices"]
            for values in (choice["token_ids"], choice["logprobs"]["token_logprobs"]):
                if part == ("all", values is choice["token_ids"]):
                    values[:] = [hostile] * len(values)
            return response if part[:1] == ("all",) else changed(response, part, hostile)

        return respond

    choice: Part = ("choices", 0)
    lists: tuple[Part, ...] = ((*choice, "token_ids"), (*choice, "logprobs", "token_logprobs"))
    holes = [(*one, -20) for one in lists]
    values = [(part, hostile) for part in (*holes, ("all", True), ("all", False)) for hostile in HOSTILE]
    shapes = [(part, hostile) for part in ((), ("choices",), choice, *lists) for hostile in (None, 3, "x", [], {})]
    for part, hostile in values + shapes:
        server.says = says(hostile, part)
        outcome(lambda: asdict(ask(backend, request(FUNCTION))))
    for hostile, part in ((2**31, ("all", True)), (10**400, ("all", True)), (float("nan"), ("all", False))):
        server.says = says(hostile, part)
        with pytest.raises(BackendRefused, match="not vLLM"):
            ask(backend, request(FUNCTION))


# HTTP


def head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, b"Connection: close", *lines, b"", b""])


@contextmanager
def raw_server(first: bytes, then: bytes = b"", pause_s: float = 0.0) -> Iterator[str]:
    """Its URL. It answers each request with these bytes, without reading all of it, and repeats `then` for ever."""

    def respond(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(first)
            while then:
                time.sleep(pause_s)
                connection.sendall(then)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):  # closed with unread bytes, the connection would be reset
                pass

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=respond, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def ask_by_route(url: str, timeout_s: float = PATIENCE_S) -> InfillResult:
    """Asks as the service does."""
    backend = AutoregressiveBackend("coder", Remote("coder", Address(url)), CompletionOptions("m"))
    router = BackendRouter({"coder": Member(backend, timeout_s)})

    async def never() -> Any:
        raise AssertionError

    def ask_backend(one: Any, limit_s: float, connection: CancellableConnection) -> InfillResult:
        return one.complete(request(FUNCTION), "inline", limit_s, connection)

    async def answered() -> InfillResult:
        return await router.answer(("coder",), never, ask_backend, lambda _: True, time.monotonic() + 2 * PATIENCE_S)

    try:
        return asyncio.run(asyncio.wait_for(answered(), 2 * PATIENCE_S))
    finally:
        router.close()


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        head(b"Transfer-Encoding: chunked") + b"-5\r\n",
        head(b"X: " + b"a" * 100_000),
        head(*[b"X: a"] * 1000),
        head(status=b"204 No Content"),
        head(b"Location: http://127.0.0.1:1/", status=b"301 Moved"),
        head() + b'{"choices": [{"text": "\xff"}]}',
        head() + b'{"choices": [{"text": "\xed\xa0\x80"}]}',
        head() + b'{"choices": [{"text": "x"}], "usage": {"prompt_tokens": ' + b"9" * 5000 + b"}}",
        head() + b"[" * 100_000,
        head() + b" " * (MAX_RESPONSE + 2**17),
        head(status=b"500 X") + b'{"error": [{"message": "\\ud800"}]}',
    ],
)
def test_invalid_http_is_an_error_in_one_sentence(response: bytes) -> None:
    with raw_server(response) as url, pytest.raises((BackendDown, BackendRefused)) as caught:
        ask_by_route(url)
    assert error_response(caught.value).status_code == 502


@pytest.mark.parametrize(
    ("first", "then", "pause_s"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a", 0.02),
        (head(b"Transfer-Encoding: chunked"), b"a", 0.02),
        (head(), b" ", 0.02),
    ],
)
def test_a_server_that_never_ends_its_response_is_left_behind(first: bytes, then: bytes, pause_s: float) -> None:
    with raw_server(first, then, pause_s) as url:
        with pytest.raises(BackendDown, match=r"did not answer within 0\.\d+ s"):
            ask_by_route(url, TIMEOUT_S)


def test_the_words_of_a_server_cannot_control_the_terminal() -> None:
    body = b'{"error": {"message": "\\u001b[2J\\ud800\\n::error::x"}}'
    with raw_server(head(status=b"401 X") + body) as url, pytest.raises(BackendRefused, match="401") as caught:
        ask_by_route(url)
    assert not set("\x1b\n\ud800") & set(str(caught.value))
    with raw_server(head(status=b"400 X") + body) as url, pytest.raises(InputError):
        ask_by_route(url)


def test_an_unforeseen_error_is_a_refusal() -> None:
    class Broken:
        name = "broken"

        def complete(self, *_: Any) -> InfillResult:
            raise ZeroDivisionError

    router = BackendRouter({"broken": Member(Broken(), PATIENCE_S)})  # type: ignore[arg-type]

    async def answered() -> Any:
        return await router.answer(
            ("broken",), lambda: asyncio.sleep(0), lambda one, *_: one.complete(), bool, time.monotonic() + PATIENCE_S
        )

    with pytest.raises(BackendRefused, match="ZeroDivisionError"):
        asyncio.run(answered())


# through the service


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (("completions", 0, "text"), "\ud800"),
        (("completions", 0, "confidence"), 10**400),
        (("completions", 0, "candidates", 0, "evidence", "seam"), float("inf")),
        (("completions",), []),
        (("timings_ms",), {}),
        ((), None),
    ],
)
def test_no_api_answers_500_whatever_a_server_answers(server: JsonServer, part: Part, value: Any) -> None:
    server.says = lambda path, body: changed(gesso_result(), part, value)
    team = GessoBackend("team", Remote("team", Address(server.url.removesuffix("/v1"))))
    router = BackendRouter({"team": Member(team, PATIENCE_S)})
    local = ModelEngine(Settings(model="none"))
    local.state = EngineState("failed", "none", message="There is no model.")
    local.tokens = lambda text: [0]  # type: ignore[method-assign]
    routes = Routes(dict.fromkeys(("inline", "block", "edit", "lint", "batch"), ("team",)), {})  # type: ignore[arg-type]
    api = TestClient(make_app(RoutedEngine(local, routes, router)))
    before, after = FUNCTION.split("§")
    infill = {"text": before + after, "holes": [{"start": len(before), "end": len(before)}]}
    bodies = {
        "/v1/infill": infill,
        "/v1/lint": {"text": before},
        "/v1/completions": {"prompt": before, "suffix": after},
        "/v1/fim/completions": {"prompt": before, "suffix": after},
        "/infill": {"input_prefix": before, "input_suffix": after},
    }
    for path, body in bodies.items():
        for stream in (False, True):
            response = api.post(path, json=body | {"stream": stream})
            assert response.status_code in (200, 502), response.text
            assert "NaN" not in response.text and "Infinity" not in response.text
    router.close()
