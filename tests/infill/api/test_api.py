"""The APIs as clients use them, in this process with a tiny model: shapes, limits, refusals."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
import torch
from starlette.testclient import TestClient

from engine.scheduling.request import Order, Task
from engine.scheduling.scheduler import Scheduler
from infill.api.paths import GETS, POSTS
from infill.api.values import (
    LintBody,
    findings_from_json,
    lint_request_to_json,
    request_to_json,
    result_from_json,
)
from infill.complete.last_draft import LastDraft
from infill.engine_protocol import EngineState
from infill.findings import LintRequest
from infill.lint.linter import Linter
from infill.lint.thresholds import Threshold, Thresholds
from infill.request import Hole, InfillRequest, Neighbour
from infill.service import model_engine
from infill.service.app import make_app
from infill.service.guard import MAX_BODY, Guard, RequestActivity
from infill.service.model_engine import MAX_CLIENTS, ModelEngine
from infill.settings import Settings
from infill.validation import structure
from tests.infill.fakes import tiny_completer
from tests.waiting import PATIENCE_S, until

torch.set_num_threads(1)
PREFIX, SUFFIX = "def add(one, other):\n    return ", "\n\n\nprint(add(1, 2))\n"
LLAMA_VIM: dict[str, Any] = {
    "id_slot": 0,
    "input_prefix": "def add(one, other):\n",
    "input_suffix": "\n",
    "input_extra": [{"filename": "other.py", "text": "def sub(one, other):\n    return one - other\n", "time": [1, 2]}],
    "prompt": "    return ",
    "n_predict": 128,
    "stop": [],
    "n_indent": 4,
    "top_k": 40,
    "top_p": 0.99,
    "samplers": ["top_k", "top_p", "infill"],
    "stream": False,
    "cache_prompt": True,
    "t_max_prompt_ms": 60_000,
    "t_max_predict_ms": 60_000,
    "response_fields": ["content", "timings/prompt_n", "timings/predicted_ms", "truncated", "tokens_cached", "none"],
}


class ReadyEngine(ModelEngine):
    """A service engine with a loaded tiny model."""

    def __init__(self) -> None:
        super().__init__(Settings(model="tiny"))
        self._model = tiny_completer().model
        self.scheduler = Scheduler(self._model.denoiser)
        self.state = EngineState("ready", "tiny")


@pytest.fixture(scope="module")
def engine() -> Iterator[ReadyEngine]:
    engine = ReadyEngine()
    yield engine
    engine.close()


@pytest.fixture
def api(engine: ReadyEngine) -> TestClient:
    return TestClient(Guard(make_app(engine), RequestActivity()))


def events(text: str) -> list[tuple[str, Any]]:
    """The names and data of the events in a stream."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        data = lines["data"]
        found.append((lines.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


def infill_body(**more: Any) -> dict[str, Any]:
    at = len(PREFIX)
    return {"text": PREFIX + SUFFIX, "holes": [{"start": at, "end": at}], "language": "python", **more}


# Gesso


def test_an_infill_returns_the_whole_result(api: TestClient) -> None:
    response = api.post("/v1/infill", json=infill_body(candidates=2, caution=0))
    assert response.status_code == 200
    result = result_from_json(response.json())
    assert result.completions[0].hole.start == len(PREFIX) and len(result.completions[0].candidates) >= 2
    assert set(result.timings_ms) == {"context", "encode", "denoise", "checks", "total"}


def test_a_stream_ends_with_the_same_result(api: TestClient) -> None:
    whole = api.post("/v1/infill", json=infill_body()).json()
    streamed = events(api.post("/v1/infill", json=infill_body(stream=True)).text)
    assert [name for name, _ in streamed[:-1]] == ["step"] * (len(streamed) - 1) and len(streamed) > 1
    assert streamed[-1][0] == "result"
    assert streamed[-1][1]["completions"][0]["text"] == whole["completions"][0]["text"]
    pieces = streamed[0][1]["pieces"]
    assert "".join(piece["text"] for piece in pieces if piece["state"] == "known").startswith("def add")


def test_an_error_in_a_stream_is_an_event(api: TestClient) -> None:
    (name, value), *rest = events(api.post("/v1/infill", json=infill_body(stream=True) | {"text": "x"}).text)
    assert name == "error" and "lies outside" in value["error"]["message"] and not rest


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"text": 3}, "^body.text is 3; it must be a string"),
        ({"text": None}, "text is null"),
        ({"holes": []}, r"holes is \[\]; it must be a list of 1 to 1000"),
        ({"holes": [{"start": 0}]}, r"holes\[0\].end is missing"),
        ({"holes": [{"start": 0, "end": True}]}, "whole number"),
        ({"lines": "two"}, "one of one, block, auto"),
        ({"candidates": 33}, "from 1 to 32"),
        ({"deadline_ms": float("nan")}, "deadline_ms is NaN; it must be a number"),
        ({"neighbours": [{"path": "/etc/passwd"}]}, "text is missing"),
        ({"text": "\ud800"}, "text contains half of a character"),
        ({"lines": "\ud800"}, "one of one, block, auto"),
        ({"neighbours": "ab"}, "must be a list"),
        ({"seed": 2**63}, "seed is 9223372036854775808; it must be"),
        ({"caution": 10**400}, "caution is 1000"),
    ],
)
def test_an_error_names_the_wrong_field(api: TestClient, change: dict[str, Any], word: str) -> None:
    content = json.dumps(infill_body() | change)
    response = api.post("/v1/infill", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert re.search(word, response.json()["error"]["message"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'"text"'])
def test_a_body_that_is_not_a_json_object_is_refused(api: TestClient, content: bytes) -> None:
    response = api.post("/v1/infill", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400 and "JSON" in response.json()["error"]["message"]


OTHERS = (("ok.py", b"o"), (".env", b"o"), ("lib/secrets.json", b"o"), ("u.py", b"\\ud83d"), ("l.py", b"caf\xe9"))


@pytest.mark.parametrize(
    ("path", "field", "name", "body"),
    [
        ("/v1/infill", "neighbours", "path", infill_body()),
        ("/infill", "input_extra", "filename", LLAMA_VIM),
    ],
)
def test_private_and_broken_other_files_are_left_out(
    api: TestClient, engine: ReadyEngine, monkeypatch: pytest.MonkeyPatch, path: str, field: str, name: str, body: Any
) -> None:
    seen = []
    check = engine.check
    monkeypatch.setattr(engine, "check", lambda request: seen.append(request.request) or check(request))
    others = b",".join(b'{"%s":"%s","text":"%s"}' % (name.encode(), file.encode(), text) for file, text in OTHERS)
    content = json.dumps(body | {field: "@@"}).encode().replace(b'"@@"', b"[" + others + b"]")
    response = api.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert [one.path for one in seen[0].neighbours] == ["ok.py"]


# lint


@pytest.fixture
def barred(engine: ReadyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes every misspelled word for wrong."""
    bars = {"misspelled": Threshold({}, intercept=1.0, minimums={"python": 0.0})}
    monkeypatch.setattr(engine, "_thresholds", Thresholds(bars))
    monkeypatch.setattr("infill.lint.likelihood.MIN_FIRST_GAIN", -1e9)


def test_the_findings_equal_those_of_a_linter(engine: ReadyEngine, api: TestClient, barred: None) -> None:
    text = "first = 1\nsecond = frist + 1\nprint(first, second)\n"
    (mine,) = Linter(tiny_completer(), engine._thresholds).lint(
        LintRequest(text, "python", on=frozenset({"misspelled"}))
    )
    assert mine.replacement == "first"
    body = {"text": text, "language": "python", "on": ["misspelled"]}
    assert findings_from_json(api.post("/v1/lint", json=body).json()) == (mine,)
    for range_, found in (({"start": 10, "end": 29}, 1), ({"start": 30, "end": 40}, 0)):
        assert len(api.post("/v1/lint", json=body | {"ranges": [range_]}).json()["findings"]) == found
    assert api.post("/v1/lint", json=body | {"off": ["misspelled"]}).json() == {"findings": []}


def test_an_invalid_lint_request_is_refused(api: TestClient, barred: None) -> None:
    for change in ({"ranges": [{"start": 0, "end": 99}]}, {"ranges": [{"start": 2, "end": 1}]}, {"text": None}):
        answer = api.post("/v1/lint", json={"text": "x = 1\n", "language": "python"} | change)
        assert answer.status_code == 400, answer.text


def test_a_lint_request_survives_json() -> None:
    asked = LintRequest("x\n", "go", "x.go", ((0, 1),), (Neighbour("y.go", "y"),), frozenset({"b", "a"}))
    sent = json.loads(json.dumps(lint_request_to_json(asked)))
    assert structure(LintBody, sent, "body").request() == asked


def test_a_lint_that_takes_too_long_is_busy(api: TestClient, barred: None, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"text": "count = 1\nprint(cuont)\n", "language": "python", "on": ["misspelled"]}
    with monkeypatch.context() as patch:
        patch.setattr(model_engine, "_or_late", lambda stop, deadline: lambda: True)  # the deadline passes meanwhile
        answer = api.post("/v1/lint", json=body)
        assert answer.status_code == 429 and "took too long" in answer.json()["error"]["message"]
    monkeypatch.setattr("infill.engine_protocol.LINT_LIMIT_S", 0.0)
    assert api.post("/v1/lint", json=body).status_code == 429


def test_typing_along_a_draft_needs_fewer_passes(engine: ReadyEngine, api: TestClient) -> None:
    """Each request has its own completer; the client's last draft is passed on to the next one."""
    assert engine.scheduler is not None

    def calls(client: str) -> int:
        assert engine.scheduler is not None
        before = engine.scheduler.load.calls
        api.post("/v1/infill", json=infill_body(client=client, copy_drafts=False, seed=5))
        return engine.scheduler.load.calls - before

    first = calls("typist")
    assert calls("typist") < first and calls("another") == first
    engine._drafts.clear()
    for number in range(MAX_CLIENTS + 3):
        engine._remember_draft(str(number), LastDraft())
    assert len(engine._drafts) == MAX_CLIENTS and "2" not in engine._drafts and "3" in engine._drafts


def test_reading_ahead_saves_the_completion_its_prompt_and_has_the_priority_of_lint(
    engine: ReadyEngine, api: TestClient
) -> None:
    body = infill_body(text=PREFIX + SUFFIX * 20, path="ahead.py")
    before = engine.counts.outcomes["lint", "quiet"]
    read = api.post("/v1/read-ahead", json=body).json()
    assert read["encoded_tokens"] > 20 and engine.counts.outcomes["lint", "quiet"] == before + 1
    assert api.post("/v1/read-ahead", json=body).json() == {"encoded_tokens": 0}
    assert api.post("/v1/infill", json=body).json()["encoded_tokens"] == 0
    assert api.post("/v1/read-ahead", json=body | {"holes": []}).status_code == 400


def test_settings_in_a_request_apply_to_it_alone(api: TestClient) -> None:
    body = infill_body(caution=1)
    (sure,) = api.post("/v1/infill", json=body | {"min_confidence": 1.0}).json()["completions"]
    assert not sure["shown"]
    plain = api.post("/v1/infill", json=body | {"copy_drafts": False, "causal_draft": False}).json()
    assert {one["source"] for one in plain["completions"][0]["candidates"]} == {"model"}
    other = api.post("/v1/infill", json=body).json()
    assert {one["source"] for one in other["completions"][0]["candidates"]} > {"model"}


# OpenAI


def test_the_openai_package_completes_with_a_suffix(engine: ReadyEngine, api: TestClient) -> None:
    client = _openai(engine)
    completion = client.completions.create(model="gesso", prompt=PREFIX, suffix=SUFFIX, max_tokens=32, n=2, seed=1)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert {choice.finish_reason for choice in completion.choices} <= {"stop", "length"}
    assert completion.usage is not None and completion.usage.prompt_tokens > 0
    chunks = list(client.completions.create(model="gesso", prompt=PREFIX, suffix=SUFFIX, seed=1, stream=True))
    whole = client.completions.create(model="gesso", prompt=PREFIX, suffix=SUFFIX, seed=1)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert [model.id for model in client.models.list()] == ["tiny"]
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.completions.create(model="gesso", prompt=PREFIX, max_tokens=-1)


def test_stops_and_the_token_limit_cut_the_text(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.complete.judging.first_refusal", lambda context: None)
    body = {"prompt": [PREFIX], "suffix": SUFFIX, "echo": True}
    text = api.post("/v1/completions", json=body).json()["choices"][0]["text"].removeprefix(PREFIX)
    assert len(text) > 3
    stopped = api.post("/v1/completions", json=body | {"stop": [text[1:3]]}).json()["choices"][0]
    assert stopped["text"] == PREFIX + text[: text.index(text[1:3])]
    limited = api.post("/v1/completions", json=body | {"max_tokens": 1}).json()["choices"][0]
    assert limited["finish_reason"] == "length" and text.startswith(limited["text"].removeprefix(PREFIX))


def test_continue_reads_deltas_and_minuet_reads_texts(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.complete.judging.first_refusal", lambda context: None)
    body = {"model": "m", "prompt": PREFIX, "suffix": SUFFIX, "temperature": 0.1, "stream": True, "stop": ["\n\n"]}
    deltas = events(api.post("/v1/fim/completions", json=body).text)
    texts = events(api.post("/v1/completions", json=body | {"stream_options": {"include_usage": True}}).text)
    assert deltas[-1] == texts[-1] == ("", "[DONE]")
    one = "".join(data["choices"][0]["delta"].get("content", "") for _, data in deltas[:-1])
    other = "".join(data["choices"][0]["text"] for _, data in texts[:-1] if data["choices"])
    assert one and one == other
    assert texts[-2][1]["usage"]["total_tokens"] > 0


def test_a_text_that_is_not_shown_has_its_own_confidence_and_reason(api: TestClient) -> None:
    body = {"prompt": PREFIX, "suffix": SUFFIX, "n": 3}
    for choice in api.post("/v1/completions", json=body).json()["choices"]:
        gesso = choice["gesso"]
        assert (choice["text"] == "") == (not gesso["shown"]) == (gesso["reason"] is not None)
        if "confidence" in (gesso["reason"] or ""):
            assert f"confidence {gesso['confidence']:.2f} is below" in gesso["reason"]


def test_usage_counts_what_the_model_was_given(api: TestClient, engine: ReadyEngine) -> None:
    def counted(prompt: str) -> int:
        return int(api.post("/v1/completions", json={"prompt": prompt}).json()["usage"]["prompt_tokens"])

    short, longer = "value = ", "first = 1\nsecond = 2\nvalue = "
    more = len(engine.tokens(longer)) - len(engine.tokens(short))
    assert counted(longer) - counted(short) == more > 5


@pytest.mark.parametrize("text", ["", "x", "value = 1\n"])
def test_a_hole_may_be_the_whole_text(api: TestClient, text: str) -> None:
    """Nothing then predicts the text or follows it; JSON has no infinity."""
    body = {"text": text, "holes": [{"start": 0, "end": len(text)}], "caution": 0, "candidates": 3}
    response = api.post("/v1/infill", json=body)
    assert response.status_code == 200
    for candidate in response.json()["completions"][0]["candidates"]:
        assert all(math.isfinite(value) for value in candidate["evidence"].values())
    assert api.post("/v1/completions", json={"prompt": text}).status_code == 200
    assert api.post("/infill", json={"prompt": text}).status_code == 200


def test_names_that_are_not_unicode_reach_the_service(api: TestClient) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    sent = request_to_json(InfillRequest("x = \udce9\n", (Hole(4, 4),), path=name, neighbours=(Neighbour(name, "y"),)))
    assert sent["path"] == sent["neighbours"][0]["path"] == "caf\ufffd.py" and sent["text"] == "x = \ufffd\n"
    assert api.post("/v1/infill", json=sent).status_code == 200
    lint = lint_request_to_json(LintRequest("x = 1\n", path=name))
    assert lint["path"] == "caf\ufffd.py" and api.post("/v1/lint", json=lint).status_code == 200


# llama.cpp


def test_llama_vim_gets_the_requested_fields(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.complete.judging.first_refusal", lambda context: None)
    answer = api.post("/infill", json=LLAMA_VIM).json()
    assert set(answer) == {"content", "timings/prompt_n", "timings/predicted_ms", "truncated", "tokens_cached"}
    assert answer["content"] and answer["timings/predicted_ms"] > 0
    whole = api.post("/infill", json=LLAMA_VIM | {"response_fields": []}).json()
    assert whole["content"] == answer["content"] and whole["stop"] is True and whole["timings"]["predicted_n"] > 0
    streamed = events(api.post("/infill", json=LLAMA_VIM | {"stream": True}).text)
    assert "".join(data["content"] for _, data in streamed) == answer["content"]
    assert [data["stop"] for _, data in streamed] == [False, True]


def test_the_line_before_the_cursor_follows_the_prefix(engine: ReadyEngine, api: TestClient) -> None:
    seen = []
    original = engine.complete

    async def spy(asked: Any, on_step: Any = None) -> Any:
        seen.append(asked.request)
        return await original(asked, on_step)

    engine.complete = spy  # type: ignore[method-assign]
    try:
        api.post("/infill", json=LLAMA_VIM)
    finally:
        del engine.complete  # type: ignore[method-assign]
    (request,) = seen
    assert request.text == "def add(one, other):\n    return \n" and request.deadline_ms == 120_000
    assert request.text[: request.holes[0].start].endswith("return ") and request.neighbours[0].path == "other.py"


def test_a_warm_up_request_does_not_run_the_model(engine: ReadyEngine, api: TestClient) -> None:
    assert engine.scheduler is not None
    calls = engine.scheduler.load.calls
    assert api.post("/infill", json=LLAMA_VIM | {"n_predict": 0}).json()["content"] == ""
    assert engine.scheduler.load.calls == calls


# refusals


@pytest.mark.parametrize("header", [{"Origin": "null"}, {"Origin": "http://x"}, {"Sec-Fetch-Site": "cross-site"}])
def test_web_pages_are_refused(api: TestClient, header: dict[str, str]) -> None:
    assert api.get("/health", headers=header).status_code == 403
    assert api.post("/v1/infill", json=infill_body(), headers=header).status_code == 403


def test_on_tcp_the_host_must_be_this_machine(engine: ReadyEngine) -> None:
    api = TestClient(Guard(make_app(engine), RequestActivity(), check_host=True))
    for host in ("127.0.0.1:8012", "localhost", "[::1]:8012"):
        assert api.get("/health", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost.", "[::1].evil"):
        assert api.get("/health", headers={"Host": host}).status_code == 403


def test_every_path_needs_the_token(engine: ReadyEngine) -> None:
    api = TestClient(Guard(make_app(engine), RequestActivity(), token="0123456789abcdef"))
    for path in ("/health", "/docs", "/metrics", "/none"):
        assert api.get(path).status_code == 401
    for wrong in ("Bearer 0123456789abcdeX", "Bearer ", "0123456789abcdef"):
        assert api.post("/v1/infill", json=infill_body(), headers={"Authorization": wrong}).status_code == 401
    right = {"Authorization": "Bearer 0123456789abcdef"}
    assert api.post("/v1/infill", json=infill_body(), headers=right).status_code == 200


def test_a_body_must_be_json_and_not_too_large(api: TestClient) -> None:
    assert api.post("/v1/infill", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert api.post("/v1/infill", json=infill_body(client="x" * MAX_BODY)).status_code == 413

    digits = {"Content-Type": "application/json", "Content-Length": "9" * 5000}
    assert api.post("/v1/infill", content=b"{}", headers=digits).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(MAX_BODY // 2**16 + 2):
            yield b" " * 2**16

    chunked = api.post("/v1/infill", content=pieces(), headers={"Content-Type": "application/json"})
    assert chunked.status_code == 413


def test_reading_a_body_times_out(engine: ReadyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.service.guard.READ_S", 0.01)
    activity, sent = RequestActivity(), []

    async def never() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def keep(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    asyncio.run(Guard(make_app(engine), activity)(scope, never, keep))
    assert sent[0]["status"] == 408 and activity.busy == 0


def test_the_bodies_of_all_requests_together_are_limited(engine: ReadyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    activity = RequestActivity()
    api = TestClient(Guard(make_app(engine), activity))
    activity.body_bytes = 64 << 20
    answer = api.post("/v1/infill", json=infill_body())
    assert answer.status_code == 429 and answer.headers["Retry-After"] == "1"
    assert activity.body_bytes == 64 << 20
    activity.body_bytes = 0
    assert api.post("/v1/infill", json=infill_body()).status_code == 200 and activity.body_bytes == 0


def test_sending_to_a_client_that_does_not_read_times_out(engine: ReadyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infill.service.guard.SEND_S", 0.01)
    activity = RequestActivity()

    async def nothing_more() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(infill_body(stream=True)).encode(), "more_body": False}

    async def stuck(message: Any) -> None:
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "path": "/v1/infill", "query_string": b"", "http_version": "1.1"}
    scope |= {"headers": [(b"content-type", b"application/json")], "asgi": {"spec_version": "2.4"}}
    with pytest.raises(Exception):  # noqa: B017 - the server only learns that the response failed
        asyncio.run(asyncio.wait_for(Guard(make_app(engine), activity)(scope, nothing_more, stuck), PATIENCE_S))
    assert engine.pending == 0 and activity.busy == 0


# states


def test_while_the_model_loads_requests_are_refused(engine: ReadyEngine, api: TestClient) -> None:
    state, engine.state = engine.state, EngineState("loading", "tiny", 3, 10)
    try:
        health = api.get("/health")
        assert health.status_code == 503 and health.json()["status"] == "loading"
        assert (health.json()["done"], health.json()["total"]) == (3, 10)
        for path, body in (("/v1/infill", infill_body()), ("/infill", LLAMA_VIM), ("/v1/completions", {"prompt": "x"})):
            for stream in (False, True):
                answer = api.post(path, json=body | {"stream": stream})
                assert answer.status_code == 503 and "still loading" in answer.json()["error"]["message"]
                assert answer.headers["Retry-After"] == "1"
    finally:
        engine.state = state


def test_a_request_without_a_turn_before_its_deadline_is_busy(
    engine: ReadyEngine, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, release = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        running.set()
        release.wait(PATIENCE_S)

    scheduler = engine.scheduler
    assert scheduler is not None
    scheduler.submit(hold, Order())
    assert running.wait(PATIENCE_S)

    def let_the_deadline_pass() -> None:
        until(lambda: len(scheduler._tasks) == 2)
        monkeypatch.setattr(Task, "is_late", lambda task: task.order.deadline is not None)
        release.set()

    waiting = threading.Thread(target=let_the_deadline_pass)
    waiting.start()
    answer = api.post("/v1/infill", json=infill_body(deadline_ms=60_000))
    waiting.join()
    assert answer.status_code == 429 and "deadline" in answer.json()["error"]["message"]


def test_a_busy_engine_refuses_at_once_also_a_stream(
    engine: ReadyEngine, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.scheduler is not None
    monkeypatch.setattr(engine.scheduler, "until_answer", lambda _: 90.0)
    for stream in (False, True):
        answer = api.post("/v1/infill", json=infill_body(deadline_ms=60_000, stream=stream))
        assert answer.status_code == 429 and answer.json()["error"]["code"] == 429
        assert 30 <= int(answer.headers["Retry-After"]) <= 60
    assert api.post("/v1/lint", json={"text": "x = 1\n", "deadline_ms": 10}).status_code == 429
    assert api.post("/v1/infill", json=infill_body(deadline_ms=120_000)).status_code == 200


def test_a_request_that_does_not_end_at_its_deadline_is_given_up(
    engine: ReadyEngine, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_engine, "LATE_S", 0.1 - 60.0)  # given up soon, with a deadline that is far away
    release = threading.Event()
    monkeypatch.setattr(engine, "_completer_for", lambda *_: release.wait())
    answer = api.post("/v1/infill", json=infill_body(deadline_ms=60_000))
    assert answer.status_code == 429 and "did not answer" in answer.json()["error"]["message"]
    assert engine.pending == 0
    release.set()


def test_running_out_of_memory_is_reported_in_a_sentence(
    engine: ReadyEngine, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.scheduler is not None

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")

    with monkeypatch.context() as patch:
        patch.setattr(engine.scheduler.decoder.model, "encode", full)
        answer = api.post("/v1/infill", json=infill_body(client="full") | {"text": "x = 1\n" + PREFIX + SUFFIX})
    assert answer.status_code == 500 and "memory ran out; close other programs" in answer.json()["error"]["message"]
    assert api.post("/v1/infill", json=infill_body()).status_code == 200 and engine.pending == 0


def test_metrics_count_requests_and_contain_no_code(api: TestClient) -> None:
    api.post("/v1/infill", json=infill_body(path="secret.py", client="secret", priority="lint"))
    text = api.get("/metrics").text
    assert 'gesso_requests_total{priority="lint",outcome=' in text and "gesso_passes_total" in text
    assert "secret" not in text and 'le="+Inf"' in text
    for line in text.splitlines():
        assert line.startswith("#") or (line.startswith("gesso_") and float(line.rsplit(" ", 1)[1]) >= 0)


def test_the_description_names_every_path_and_its_page_has_no_script(api: TestClient) -> None:
    described = api.get("/openapi.json").json()
    for table, method in ((POSTS, "post"), (GETS, "get")):
        paths = [one.path for one in table]
        assert [path for path, methods in described["paths"].items() if method in methods] == paths
        assert all(getattr(api, method)(path).status_code not in (404, 405) for path in paths)
    page = api.get("/docs").text
    assert all(one.path in page for one in POSTS) and "<script" not in page
    assert api.get("/v1/infill").status_code == 405 and api.get("/none").status_code == 404


def test_chat_completions_are_refused_with_the_paths_to_use(api: TestClient) -> None:
    answer = api.post("/v1/chat/completions", json={"model": "x", "messages": [{"role": "user", "content": "Hi"}]})
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and message.count(".") == 1
    assert "/v1/completions" in message and "/v1/fim/completions" in message


def _openai(engine: ReadyEngine) -> openai.OpenAI:
    """The real package, over a transport that ends in this process."""
    transport = TestClient(Guard(make_app(engine), RequestActivity()), base_url="http://localhost")._transport
    own = httpx2.Client(transport=transport, base_url="http://localhost/v1")
    return openai.OpenAI(api_key="none", base_url="http://localhost/v1", http_client=own, max_retries=0)
