"""`gesso.edit` over the real transport, with a scripted service and with the shipped model, which cannot rewrite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gate import Gate
from tests.lsp.client import MODERN, ROOT, Client

SERVER = (str(ROOT / "tests" / "lsp" / "scripted_server.py"),)
TEXT = "a = '😀'; b = 2\nc = 3\n"
B = {"start": {"line": 0, "character": 10}, "end": {"line": 0, "character": 15}}


def capabilities(**edits: Any) -> dict[str, Any]:
    return {**MODERN, "workspace": {"workspaceEdit": edits}}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Of the instruction `slow`."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def client(environment: dict[str, str], request: pytest.FixtureRequest, gate: Gate) -> Iterator[Client]:
    client = Client({**environment, **gate.environment}, server=SERVER)
    client.initialize(capabilities(**getattr(request, "param", {"documentChanges": True})))
    client.wait_until_ready()
    yield client
    client.close()


@pytest.fixture
def address(client: Client, tmp_path: Path) -> str:
    uri = (tmp_path / "a.py").as_uri()
    client.open(uri, TEXT)
    return uri


def applied(client: Client) -> list[dict[str, Any]]:
    return [message["params"] for message in client.received if message["method"] == "workspace/applyEdit"]


def test_the_edit_is_bound_to_the_version_of_the_document(client: Client, address: str) -> None:
    outcome = client.command("gesso.edit", address, B, "b = 4")
    assert outcome == {"applied": True, "text": "b = 4", "reason": None}
    (params,) = applied(client)
    (change,) = params["edit"]["documentChanges"]
    assert change["textDocument"] == {"uri": address, "version": 1}
    assert change["edits"] == [{"range": B, "newText": "b = 4"}]


@pytest.mark.parametrize(
    "client", [{"documentChanges": True, "changeAnnotationSupport": {"groupsOnLabel": True}}], indirect=True
)
def test_a_client_that_can_asks_for_confirmation(client: Client, address: str) -> None:
    client.command("gesso.edit", address, B, "b = 4")
    (edit,) = [params["edit"] for params in applied(client)]
    (annotation,) = edit["changeAnnotations"].items()
    assert annotation[1]["needsConfirmation"] is True
    assert edit["documentChanges"][0]["edits"][0]["annotationId"] == annotation[0]


def test_a_client_gets_the_lines_as_they_are_written_and_applies_the_text(client: Client, address: str) -> None:
    selected = {"start": {"line": 0, "character": 14}, "end": {"line": 2, "character": 0}}
    options = {"progress": "t1", "apply": False}
    outcome = client.command("gesso.edit", address, selected, "b = 4\nc = 5", options)
    assert outcome == {"applied": False, "text": "b = 4\nc = 5", "reason": None} and not applied(client)
    (progress,) = [
        one["params"] for one in client.received if one["method"] == "$/progress" and one["params"]["token"] == "t1"
    ]
    assert progress == {"token": "t1", "value": {"start": 0, "end": 2, "text": "b = 4"}}


@pytest.mark.parametrize("client", [{}], indirect=True)
def test_a_client_without_versions_gets_plain_changes(client: Client, address: str) -> None:
    client.command("gesso.edit", address, B, "b = 4")
    assert applied(client)[0]["edit"]["changes"] == {address: [{"range": B, "newText": "b = 4"}]}


def test_what_is_not_applied_has_a_reason(client: Client, address: str, tmp_path: Path) -> None:
    refused = client.command("gesso.edit", address, B, "refuse")
    assert not refused["applied"] and "the answer is empty" in refused["reason"]
    assert "not open" in client.command("gesso.edit", address + "x", B, "b = 4")["reason"]
    secret = (tmp_path / ".env").as_uri()
    client.open(secret, "TOKEN=abc\n")
    assert client.command("gesso.edit", secret, B, "b = 4")["reason"]
    assert not applied(client)
    client.applies = False
    assert client.command("gesso.edit", address, B, "b = 4")["reason"] == "The editor did not apply it."


def test_a_change_meanwhile_is_not_overwritten(client: Client, address: str, gate: Gate) -> None:
    arguments = [address, B, "slow"]
    request = client.start_request("workspace/executeCommand", {"command": "gesso.edit", "arguments": arguments})
    gate.wait_until_reached()
    client.type(address, 1, 0, "d")
    client.command("gesso.status")
    gate.open()
    outcome = client.result(request)
    assert not outcome["applied"] and "has changed" in outcome["reason"] and not applied(client)


def test_a_request_can_be_cancelled(client: Client, address: str, gate: Gate) -> None:
    arguments = [address, B, "slow"]
    request = client.start_request("workspace/executeCommand", {"command": "gesso.edit", "arguments": arguments})
    gate.wait_until_reached()
    client.notify("$/cancelRequest", {"id": request})
    with pytest.raises(LookupError) as error:
        client.result(request)
    assert error.value.args[0] == -32800 and not applied(client)


def test_the_pocket_model_says_which_models_can(shared: Client, uri: str) -> None:
    shared.open(uri, TEXT)
    assert "use coder" in shared.command("gesso.edit", uri, B, "make it 4")["reason"]
