"""Many requests, long files and random messages: the server answers, stays responsive and does not grow."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lsp.client import Client
from tests.lsp.test_server import CODE, CURSOR, LAST
from tests.waiting import until

METHODS = (
    "initialize",
    "textDocument/didOpen",
    "textDocument/didChange",
    "textDocument/didClose",
    "textDocument/didSave",
    "textDocument/inlineCompletion",
    "textDocument/didPartiallyAcceptCompletion",
    "textDocument/didShowCompletion",
    "textDocument/didFocus",
    "textDocument/codeAction",
    "textDocument/diagnostic",
    "textDocument/completion",
    "workspace/executeCommand",
    "workspace/didChangeConfiguration",
    "$/cancelRequest",
    "$/setTrace",
    "unknown",
)
WORDS = st.sampled_from(
    [
        "textDocument",
        "uri",
        "file:///fuzz.py",
        "position",
        "line",
        "character",
        "contentChanges",
        "range",
        "start",
        "end",
    ]
    + ["text", "version", "languageId", "python", "context", "triggerKind", "command", "arguments", "item", "jsonrpc"]
    + ["acceptedLength", "gesso.accepted", "gesso.partlyAccepted", "gesso.rejected", "gesso.whyNothing", "gesso.report"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**33) | st.floats(allow_nan=False) | WORDS | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)
POSITIONS = st.fixed_dictionaries({"line": st.integers(0, 40), "character": st.integers(0, 40)})
NEAR_MISSES = st.fixed_dictionaries(
    {
        "textDocument": st.fixed_dictionaries({"uri": st.just("file:///fuzz.py"), "version": st.integers(-1, 9)}),
        "position": st.fixed_dictionaries({"line": st.integers(0, 2**31), "character": st.integers(0, 2**31)}),
        "context": st.fixed_dictionaries(
            {"triggerKind": st.integers(0, 4), "diagnostics": st.lists(VALUES, max_size=2)}
        ),
        "contentChanges": st.lists(
            st.fixed_dictionaries(
                {
                    "text": st.text(max_size=9),
                    "range": st.fixed_dictionaries({"start": POSITIONS, "end": POSITIONS}),
                }
            ),
            max_size=3,
        ),
        "range": st.fixed_dictionaries({"start": POSITIONS, "end": POSITIONS}),
        "settings": st.dictionaries(st.sampled_from(["gesso", "delayMs", "languages"]), VALUES, max_size=2),
    }
)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(messages=st.lists(st.tuples(st.sampled_from(METHODS), VALUES | NEAR_MISSES, st.booleans()), max_size=5))
def test_random_messages_do_not_stop_the_server(fuzzed: Client, messages: list[tuple[str, Any, bool]]) -> None:
    for method, params, is_request in messages:
        if is_request:
            fuzzed.start_request(method, params)
        else:
            fuzzed.notify(method, params)
    assert "state" in fuzzed.command("gesso.status")
    fuzzed.answers.clear()
    fuzzed.received.clear()


@pytest.fixture(scope="module")
def fuzzed(environment: dict[str, str]) -> Any:
    client = Client(environment)
    client.initialize(settings={"enabled": False})
    client.open("file:///fuzz.py", CODE)
    yield client
    client.kill()


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_the_memory_of_five_hundred_documents_is_freed(shared: Client) -> None:
    grown = []
    for turn in range(3):
        uris = [f"file:///many/{turn}/{number}.py" for number in range(500)]
        for uri in uris:
            shared.open(uri, CODE * 20)
            shared.type(uri, LAST, CURSOR, "x")
        assert shared.command("gesso.status")["state"] == "ready"
        for uri in uris:
            shared.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        shared.command("gesso.status")
        time.sleep(1.0)
        grown.append(_resident_mib(shared.process.pid))
    until(lambda: _resident_mib(shared.process.pid) - grown[1] < 25, lambda: grown)


def test_of_twenty_requests_at_once_only_the_last_is_answered(shared: Client, uri: str) -> None:
    shared.open(uri, CODE.replace("owner", "holder"))
    with shared.together():
        requests = [shared.start_inline(uri, LAST, CURSOR, invoked=True) for _ in range(20)]
    codes = []
    for request in requests[:-1]:
        with pytest.raises(LookupError) as error:
            shared.result(request)
        codes.append(error.value.args[0])
    assert codes == [-32800] * 19
    assert shared.result(requests[-1])["items"]


def test_a_file_of_twenty_thousand_lines(shared: Client, uri: str) -> None:
    text = "".join(f"def function_{number}(first, second):\n    return first + second\n" for number in range(10_000))
    shared.open(uri, text)
    middle = 10_001
    line = "    return first + second"
    for offset, letter in enumerate(" * fi"):
        shared.type(uri, middle, len(line) + offset, letter)
        shared.start_inline(uri, middle, len(line) + offset + 1)
    assert shared.inline(uri, middle, len(line) + 5, invoked=True)
