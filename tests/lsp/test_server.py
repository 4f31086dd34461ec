"""The server over its real transport, with the real model: requests, cancellation, settings, commands."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from infill.service.location import location_at, lock_holder
from tests.lsp.client import MODERN, Client
from tests.services import no_service_starts
from tests.waiting import until

CODE = '''\
class Account:
    """Money that belongs to somebody."""

    def __init__(self, owner, balance):
        self.owner = owner
        self.balance = balance

    def deposit(self, amount):
        self.balance = self.balance + amount

    def withdraw(self, amount):
        self.balance = self.ba
'''
LAST = len(CODE.splitlines()) - 1
CURSOR = len(CODE.splitlines()[LAST])


def test_initialize_works_only_once(shared: Client) -> None:
    with pytest.raises(LookupError) as twice:
        shared.request("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
    assert twice.value.args[0] == -32600


def test_capabilities(bare: Client) -> None:
    capabilities = bare.initialize()["capabilities"]
    assert capabilities["inlineCompletionProvider"] is not None
    assert "completionProvider" not in capabilities and "diagnosticProvider" not in capabilities
    assert capabilities["codeActionProvider"]["codeActionKinds"] == ["quickfix"]
    assert capabilities["textDocumentSync"]["change"] == 2
    assert "gesso.accepted" in capabilities["executeCommandProvider"]["commands"]
    assert bare.close() == 0


def test_a_client_without_inline_completion_gets_ordinary_completion(bare: Client) -> None:
    capabilities = bare.initialize({"general": {"positionEncodings": ["utf-8", "utf-16"]}})["capabilities"]
    assert capabilities["completionProvider"] is not None
    assert capabilities["positionEncoding"] == "utf-8"
    assert bare.close() == 0


def test_a_suggestion_has_a_range_and_a_command(shared: Client, uri: str) -> None:
    shared.open(uri, CODE)
    items = shared.inline(uri, LAST, CURSOR, invoked=True)
    assert items
    here = {"line": LAST, "character": CURSOR}
    for item in items:
        assert item["insertText"] and "\n" not in item["insertText"].strip("\n")
        assert item["range"] == {"start": here, "end": here}
        assert item["command"]["command"] == "gesso.accepted"
    assert len({item["insertText"] for item in items}) == len(items)


def test_typing_as_suggested_needs_no_model(shared: Client, uri: str) -> None:
    shared.open(uri, CODE)
    offered = shared.inline(uri, LAST, CURSOR)[0]["insertText"]
    shared.type(uri, LAST, CURSOR, offered[0])
    items = shared.inline(uri, LAST, CURSOR + 1)
    assert [item["insertText"] for item in items] == [offered[1:]]
    assert shared.command("gesso.whyNothing")[0]["origin"] == "typed"


def test_the_same_position_again_comes_from_the_cache(shared: Client, uri: str) -> None:
    shared.open(uri, CODE)
    first = shared.inline(uri, LAST, CURSOR)
    shared.type(uri, LAST, CURSOR, "#")
    line = {"line": LAST, "character": CURSOR}
    shared.change(uri, {"range": {"start": line, "end": {"line": LAST, "character": CURSOR + 1}}, "text": ""})
    second = shared.inline(uri, LAST, CURSOR)
    assert [item["insertText"] for item in first] == [item["insertText"] for item in second]
    assert shared.command("gesso.whyNothing")[0]["origin"] in ("typed", "cache")


def test_a_superseded_request_is_answered_as_cancelled(shared: Client, uri: str) -> None:
    shared.open(uri, CODE.replace("balance", "funds"))
    text = CODE.replace("balance", "funds").splitlines()[LAST]
    with shared.together():
        older = shared.start_inline(uri, LAST, len(text), invoked=True)
        newer = shared.start_inline(uri, LAST, len(text), invoked=True)
    with pytest.raises(LookupError) as error:
        shared.result(older)
    assert error.value.args[0] == -32800
    assert isinstance(shared.result(newer)["items"], list)


def test_a_cancelled_request_does_not_disturb_the_next_one(shared: Client, uri: str) -> None:
    shared.open(uri, CODE.replace("amount", "sum_of_it"))
    with shared.together():
        request = shared.start_inline(uri, LAST, CURSOR, invoked=True)
        shared.notify("$/cancelRequest", {"id": request})
    with pytest.raises(LookupError) as error:
        shared.result(request)
    assert error.value.args[0] == -32800
    assert shared.inline(uri, LAST, CURSOR, invoked=True)


def test_the_selected_popup_entry_begins_the_suggestion(shared: Client, uri: str) -> None:
    shared.open(uri, CODE)
    chosen = {"start": {"line": LAST, "character": CURSOR - 2}, "end": {"line": LAST, "character": CURSOR}}
    params = {
        "textDocument": {"uri": uri},
        "position": {"line": LAST, "character": CURSOR},
        "context": {"triggerKind": 1, "selectedCompletionInfo": {"range": chosen, "text": "balance"}},
    }
    items = shared.request("textDocument/inlineCompletion", params)["items"]
    assert items
    for item in items:
        assert item["insertText"].startswith("balance") and item["range"] == chosen


def test_no_suggestion_is_an_empty_list_with_a_recorded_reason(shared: Client, uri: str) -> None:
    shared.open(uri, "import os\n")
    assert shared.inline(uri, 0, 3) == []
    note = shared.command("gesso.whyNothing")[0]
    assert note["outcome"] == "nothing" and note["rule"] == "inside a word" and note["sentence"].endswith(".")


@pytest.mark.parametrize("name", [".env", "id_rsa", "prod.pem"])
def test_secrets_are_never_sent(shared: Client, tmp_path: Path, name: str) -> None:
    uri = (tmp_path / name).as_uri()
    shared.open(uri, "TOKEN=abc\nPASSWORD=", "python")
    assert shared.inline(uri, 1, 9, invoked=True) == []
    assert shared.command("gesso.whyNothing")[0]["rule"] == "private file"
    shared.notify("textDocument/didClose", {"textDocument": {"uri": uri}})


def test_the_report_contains_no_code_and_no_names(shared: Client, uri: str) -> None:
    shared.open(uri, CODE.replace("Account", "Sesame"))
    shared.inline(uri, LAST, CURSOR, invoked=True)
    report = shared.command("gesso.report")
    assert "Sesame" not in report and "balance" not in report and uri not in report and Path(uri).name not in report
    assert "pocket" in report


def test_switched_off_and_on_again(shared: Client, uri: str) -> None:
    shared.open(uri, CODE)
    shared.command("gesso.setEnabled", False)
    assert shared.inline(uri, LAST, CURSOR, invoked=True) == []
    assert shared.command("gesso.status")["enabled"] is False
    shared.command("gesso.setEnabled", True)
    assert shared.inline(uri, LAST, CURSOR, invoked=True)


def test_a_wrong_setting_is_reported_and_the_others_apply(bare: Client) -> None:
    bare.initialize(settings={"gesso": {"eagerness": "frantic", "enabled": False}})
    bare.wait(lambda: any(m["method"] == "window/showMessage" for m in bare.received))
    message = next(m["params"]["message"] for m in bare.received if m["method"] == "window/showMessage")
    assert "eagerness" in message and "balanced" in message
    assert bare.command("gesso.status")["enabled"] is False


def test_settings_are_pulled_if_the_client_supports_it(bare: Client) -> None:
    bare.settings = {"enabled": False}
    bare.initialize({**MODERN, "workspace": {"configuration": True}}, settings={"enabled": True})
    bare.wait(lambda: any(m["method"] == "workspace/configuration" for m in bare.received))
    assert bare.command("gesso.status")["enabled"] is False


def test_requests_before_the_model_is_ready_are_answered_at_once(alone: Client, tmp_path: Path) -> None:
    uri = (tmp_path / "early.py").as_uri()
    with no_service_starts(location_at()):
        alone.initialize()
        alone.open(uri, CODE)
        assert alone.inline(uri, LAST, CURSOR, invoked=True) == []
        assert alone.command("gesso.whyNothing")[0]["rule"] == "model is loading"
    alone.wait_until_ready()
    progress = [m["params"]["value"]["kind"] for m in alone.received if m["method"] == "$/progress"]
    assert progress[0] == "begin" and progress[-1] == "end"
    assert alone.inline(uri, LAST, CURSOR, invoked=True)
    assert alone.close() == 0


def test_a_missing_model_is_reported_once(bare: Client, tmp_path: Path) -> None:
    bare.initialize(settings={"model": str(tmp_path / "none")})

    def warnings() -> list[str]:
        return [m["params"]["message"] for m in bare.received if m["method"] == "window/showMessage"]

    bare.wait(lambda: bool(warnings()))
    bare.wait_until_ready()
    assert len(warnings()) == 1 and "none" in warnings()[0] and "pocket answers" in warnings()[0]
    assert bare.close() == 0


@pytest.mark.slow
def test_a_missing_self_is_found_without_a_code_model_and_fixed(bare: Client, tmp_path: Path) -> None:
    actions: dict[str, Any] = {"codeActionLiteralSupport": {"codeActionKind": {"valueSet": []}}}
    bare.initialize({"textDocument": {"codeAction": actions}}, settings={"lint": True})
    bare.wait_until_ready()
    uri = (tmp_path / "account.py").as_uri()
    bare.open(uri, "class A:\n    def a(self):\n        return 1\n\n    def b(self):\n        return a() + self.a()\n")

    def found() -> list[dict[str, Any]]:
        published = [m["params"] for m in bare.received if m["method"] == "textDocument/publishDiagnostics"]
        return [one for params in published for one in params["diagnostics"]]

    bare.wait(lambda: bool(found()))
    (slip,) = found()
    assert slip["code"] == "missing-self" and slip["severity"] == 4 and slip["range"]["start"]["line"] == 5
    params = {"textDocument": {"uri": uri}, "range": slip["range"], "context": {"diagnostics": [slip]}}
    fix = bare.request("textDocument/codeAction", params)[0]
    assert fix["edit"]["changes"][uri] == [{"range": slip["range"], "newText": "self.a"}]


def test_a_command_with_too_few_arguments_gets_an_error(shared: Client) -> None:
    with pytest.raises(LookupError) as error:
        shared.command("gesso.dismiss", "file:///x.py")
    assert error.value.args[0] == -32602


@pytest.mark.slow
def test_an_engine_that_is_killed_comes_back(alone: Client, tmp_path: Path) -> None:
    alone.initialize(settings={"delayMs": 0})
    alone.wait_until_ready()
    uri = (tmp_path / "killed.py").as_uri()
    alone.open(uri, CODE)
    killed = lock_holder(location_at())
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    request = alone.start_inline(uri, LAST, CURSOR, invoked=True)
    alone.wait(lambda: alone.state() != "ready")
    alone.wait_until_ready()
    assert alone.result(request)["items"]


BAD: list[Any] = [
    b"not json",
    b"[]",
    b"{}",
    b'{"jsonrpc":"1.0","id":1,"method":"shutdown"}',
    b'{"jsonrpc":"2.0","id":null,"method":"shutdown"}',
    b'{"jsonrpc":"2.0","id":{"a":1},"method":"shutdown"}',
    b'{"jsonrpc":"2.0","id":true,"method":"shutdown"}',
    b'{"jsonrpc":"2.0","method":7}',
    b'{"jsonrpc":"2.0","id":99,"result":{}}',
    b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":12345}}',
    b'{"jsonrpc":"2.0","method":"$/cancelRequest"}',
    b'{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{"textDocument":{}}}',
    b'{"jsonrpc":"2.0","method":"textDocument/didChange","params":{"textDocument":{"uri":"x","version":1},'
    b'"contentChanges":[{"text":"a"}]}}',
    b'{"jsonrpc":"2.0","method":"textDocument/didClose","params":{"textDocument":{"uri":"never"}}}',
    b'{"jsonrpc":"2.0","method":"unknown/thing","params":{"jsonrpc":"2.0"}}',
    b"\xff\xfe",
]


def test_cancelling_a_finished_request_is_not_logged(shared: Client) -> None:
    shared.log.clear()
    for identifier in ("-17", 12345):
        shared.notify("$/cancelRequest", {"id": identifier})
    shared.notify("textDocument/didOpen", {"textDocument": {}})
    until(lambda: any("textDocument/didOpen cannot be read" in line for line in list(shared.log)))
    assert not [line for line in shared.log if "unknown message id" in line]


@pytest.mark.parametrize("body", BAD)
def test_invalid_messages_do_not_stop_the_server(shared: Client, body: bytes) -> None:
    shared.send_bytes(body)
    assert shared.command("gesso.status")["state"] == "ready"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("textDocument/inlineCompletion", {"textDocument": {"uri": "x"}, "context": {"triggerKind": 2}}),
        ("textDocument/inlineCompletion", {"position": {"line": "a", "character": 0}}),
        ("textDocument/inlineCompletion", None),
        ("workspace/executeCommand", {"command": "gesso.none"}),
        ("workspace/executeCommand", {"command": "gesso.accepted"}),
        ("workspace/executeCommand", {"command": "gesso.nextEditAccepted", "arguments": None}),
        ("workspace/executeCommand", {"command": "gesso.partlyAccepted", "arguments": ["1"]}),
    ],
)
def test_an_unreadable_request_gets_an_error(shared: Client, method: str, params: Any) -> None:
    with pytest.raises(LookupError) as error:
        shared.request(method, params)
    assert error.value.args[0] == -32602


def test_an_unknown_method_gets_an_error(shared: Client) -> None:
    shared.received.clear()
    with pytest.raises(LookupError) as error:
        shared.request("signIn", {})
    assert error.value.args[0] == -32601
    assert not [m for m in shared.received if m["method"] == "window/showMessage"]
