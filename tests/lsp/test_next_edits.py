"""`textDocument/copilotInlineEdit` over the real transport, as sidekick.nvim and copilot-lsp send it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types

from infill.next_edit.edits import Place, Proposal
from lsp.documents import Snapshot
from lsp.next_edits import NextEdits, Offer
from lsp.session import Session
from tests.gate import Gate
from tests.lsp.client import MODERN, ROOT, Client

SERVER = (str(ROOT / "tests" / "lsp" / "scripted_server.py"),)
CODE = "def area(size):\n    return size * size\n\n\ndef main():\n    área = '😀', area(size=2)\n    return area(1)\n"


SNAPSHOT = Snapshot("uri", "python", 1, ("a",), "utf-16")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Of texts with `slowly writes`."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def client(environment: dict[str, str], request: pytest.FixtureRequest, gate: Gate) -> Iterator[Client]:
    client = Client({**environment, **gate.environment}, server=SERVER)
    client.initialize(MODERN, settings=getattr(request, "param", {}))
    yield client
    client.close()


@pytest.fixture
def address(client: Client, tmp_path: Path) -> str:
    uri = (tmp_path / "a.py").as_uri()
    client.open(uri, CODE)
    return uri


def ask(client: Client, uri: str, line: int = 3, character: int = 0, **document: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.result(start(client, uri, line, character, **document))["edits"]
    return found


def start(client: Client, uri: str, line: int = 3, character: int = 0, trigger: int = 2, **document: Any) -> int:
    params = {
        "textDocument": {"uri": uri, "version": client.versions[uri], **document},
        "position": {"line": line, "character": character},
        "context": {"triggerKind": trigger},
    }
    return client.start_request("textDocument/copilotInlineEdit", params)


def replace(client: Client, uri: str, line: int, start: int, end: int, text: str) -> None:
    span = {"start": {"line": line, "character": start}, "end": {"line": line, "character": end}}
    client.change(uri, {"range": span, "text": text})


def rename(client: Client, uri: str) -> None:
    replace(client, uri, 0, 4, 8, "surface")


def why(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.command("gesso.whyNothing")[0]
    return found


def test_the_uses_of_a_renamed_function(client: Client, address: str) -> None:
    rename(client, address)
    first, second = ask(client, address)
    assert first["textDocument"] == {"uri": address, "version": 2}
    assert first["text"] == second["text"] == "surface"
    assert first["range"] == {"start": {"line": 5, "character": 17}, "end": {"line": 5, "character": 21}}
    assert second["range"]["start"] == {"line": 6, "character": 11}
    assert first["command"]["title"] == "Rename 2 uses of `area` to `surface`."
    record = why(client)
    assert (record["outcome"], record["origin"]) == ("shown", "next edit")


def test_messages_of_sidekick_and_copilot_lsp(client: Client, address: str) -> None:
    rename(client, address)
    client.notify("textDocument/didFocus", {"textDocument": {"uri": address}})
    position = {"line": 0, "character": 4}
    params = {"textDocument": {"uri": address, "version": 2}, "position": position}  # as copilot-lsp, without a context
    edits = client.request("textDocument/copilotInlineEdit", params)["edits"]
    client.notify("textDocument/didShowInlineEdit", {"item": {"command": edits[0]["command"]}})
    sent = client.start_request("textDocument/copilotInlineEdit", {**params, "context": {"triggerKind": 2}})
    client.notify("$/cancelRequest", {"id": sent})
    assert len(edits) == 2
    for edit in edits:  # sidekick.nvim executes the command of each place
        assert client.command(edit["command"]["command"], *edit["command"]["arguments"]) is None


def test_the_place_at_or_after_the_cursor_comes_first(client: Client, address: str) -> None:
    rename(client, address)
    assert [one["range"]["start"]["line"] for one in ask(client, address, 6, 0)] == [6, 5]


def test_after_one_place_is_accepted_the_rest_is_offered(client: Client, address: str) -> None:
    rename(client, address)
    first, second = ask(client, address)
    replace(client, address, 5, 17, 21, "surface")
    client.command(first["command"]["command"], *first["command"]["arguments"])
    (left,) = ask(client, address, 5, 17)
    assert left["range"] == second["range"]
    replace(client, address, 6, 11, 15, "surface")
    assert ask(client, address, 6, 11) == []
    assert why(client)["rule"] == "nothing due"


def test_keys_typed_one_by_one(client: Client, address: str) -> None:
    for _ in range(4):
        replace(client, address, 0, 4, 5, "")
    for offset, key in enumerate("side"):
        client.type(address, 0, 4 + offset, key)
    assert [one["text"] for one in ask(client, address, 0, 8)] == ["side", "side"]


def test_keys_that_are_sent_together(client: Client, address: str) -> None:
    def at(start: int, end: int, text: str) -> dict[str, Any]:
        span = {"start": {"line": 0, "character": start}, "end": {"line": 0, "character": end}}
        return {"range": span, "text": text}

    client.change(address, at(4, 8, ""), at(4, 4, "sid"), at(7, 7, "x"), at(7, 8, "e"))
    assert [one["text"] for one in ask(client, address, 0, 8)] == ["side", "side"]


def test_a_half_deleted_name_is_not_finished_until_the_cursor_leaves_it(client: Client, address: str) -> None:
    replace(client, address, 0, 7, 8, "")
    assert ask(client, address, 0, 7) == []
    assert why(client)["rule"] == "typing"
    assert [one["text"] for one in ask(client, address, 3, 0)] == ["are", "are"]


def test_the_next_key_ends_the_request(client: Client, address: str) -> None:
    with client.together():
        rename(client, address)
        pending = start(client, address)
        client.type(address, 3, 0, "x")
    assert client.result(pending) == {"edits": []}
    assert why(client)["rule"] == "outdated"


def test_another_version_gets_nothing(client: Client, address: str) -> None:
    rename(client, address)
    assert ask(client, address, version=1) == []
    assert why(client)["rule"] == "outdated"
    assert len(ask(client, address, version=None)) == 2


def test_a_dismissed_proposal_is_gone_and_its_kind_sleeps(client: Client, address: str) -> None:
    rename(client, address)
    edits = ask(client, address)
    client.command("gesso.nextEditDismissed", edits[0]["command"]["arguments"][0])
    assert ask(client, address) == []
    assert why(client)["rule"] == "asleep"
    assert len(client.result(start(client, address, trigger=1))["edits"]) == 2


def test_a_proposal_that_the_user_ignores_does_not_come_for_ever(client: Client, address: str) -> None:
    rename(client, address)
    for number in range(3):
        assert ask(client, address), number
        client.type(address, 3, 0, "#")
    assert ask(client, address) == []
    assert why(client)["rule"] == "ignored"


def test_a_proposal_is_not_ignored_while_its_edit_goes_on(client: Client, address: str) -> None:
    client.type(address, 3, 0, "unit = 1")
    client.type(address, 0, 13, ", unit")
    column = 19
    for key in (": b", "y", "t", "e", "s"):
        assert [one["text"] for one in ask(client, address, 0, column)] == [", unit=unit", ", unit"], key
        client.type(address, 0, column, key)
        column += len(key)
    assert ask(client, address, 0, column)


def test_an_accepted_proposal_that_is_undone_does_not_come_again(client: Client, address: str) -> None:
    rename(client, address)
    edits = ask(client, address)
    places = [(5, 17, 21, 24), (6, 11, 15, 18)]
    for line, left, right, _ in places:
        replace(client, address, line, left, right, "surface")
    client.command(edits[0]["command"]["command"], *edits[0]["command"]["arguments"])
    for line, left, _, right in places:
        replace(client, address, line, left, right, "area")
    assert ask(client, address) == []
    assert why(client)["rule"] == "ignored"
    assert len(client.result(start(client, address, trigger=1))["edits"]) == 2


def test_nothing_without_an_edit_or_after_a_formatter(client: Client, address: str) -> None:
    assert ask(client, address) == []
    assert why(client)["rule"] == "no edit"
    spaces = [{"range": {"start": {"line": n % 4, "character": 0}, "end": {"line": n % 4, "character": 0}}, "text": " "}
              for n in range(30)]  # fmt: skip
    client.change(address, *spaces)
    assert ask(client, address) == []


@pytest.mark.parametrize("client", [{"nextEdits": False}], indirect=True)
def test_the_setting_switches_it_off(client: Client, address: str) -> None:
    rename(client, address)
    assert ask(client, address) == []
    assert why(client)["rule"] == "next edits off"


def test_private_files_and_unknown_documents_get_nothing(client: Client, tmp_path: Path) -> None:
    secret = (tmp_path / ".env.py").as_uri()
    (tmp_path / ".gitignore").write_text(".env.py\n", "utf-8")
    (tmp_path / ".git").mkdir()
    client.open(secret, CODE)
    rename(client, secret)
    assert ask(client, secret) == []
    assert why(client)["rule"] == "private file"
    client.versions["file:///none.py"] = 1
    assert ask(client, "file:///none.py") == []


@pytest.mark.parametrize("params", [{}, [], None, {"textDocument": 1, "position": 2}, {"textDocument": {"uri": 1}}])
def test_wrong_parameters_get_nothing(client: Client, params: Any) -> None:
    assert client.request("textDocument/copilotInlineEdit", params) == {"edits": []}
    client.notify("textDocument/didShowInlineEdit", params)
    client.notify("textDocument/didPartiallyAcceptInlineEdit", params)
    assert client.command("gesso.status")["kind"]


def test_a_missing_import_from_another_open_file(client: Client, address: str, tmp_path: Path) -> None:
    client.open((tmp_path / "b.py").as_uri(), "from shapes import Circle\n")
    uri = (tmp_path / "c.py").as_uri()
    client.open(uri, "import os\n\nprint(os)\n")
    client.type(uri, 2, 8, ", Circle()")
    (edit,) = ask(client, uri, 2, 18)
    assert edit["text"] == "from shapes import Circle\n"


def test_a_kind_sleeps_longer_each_time_until_one_is_accepted() -> None:
    now = 1000.0
    edits = NextEdits(Session(None), lambda: now)  # type: ignore[arg-type]

    def offer(number: int) -> Offer:
        proposal = Proposal("rename", (Place(0, 1, "b"),), "", 1.0, 0)
        made = Offer(f"e{number}", ("uri", "rename", frozenset()), SNAPSHOT, proposal, proposal.places)
        edits._offers[made.id] = made
        return made

    for number, asleep_s in enumerate((60.0, 120.0, 240.0)):
        edits.dismissed(offer(number).id)
        assert edits._asleep["rename"] == now + asleep_s
    edits.accepted(offer(3).id)
    edits.dismissed(offer(4).id)
    assert edits._asleep["rename"] == now + 60.0


def test_a_key_while_the_file_is_judged_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(None)  # type: ignore[arg-type]
    edits = NextEdits(session)

    def change(version: int) -> Snapshot:
        span = types.Range(types.Position(3, 0), types.Position(3, 0))
        before = session.documents.get("file:///a.py")
        event = types.TextDocumentContentChangePartial(span, "x")
        after = session.documents.change(types.VersionedTextDocumentIdentifier(version, "file:///a.py"), [event])
        assert before is not None
        edits.changed(before, after)
        return after

    async def private_reason(snapshot: Snapshot) -> None:
        change(3)

    monkeypatch.setattr(session, "private_reason", private_reason)
    session.documents.open(types.TextDocumentItem("file:///a.py", "python", 1, CODE))
    assert asyncio.run(edits.propose(change(2), 0, 2)) is None
    assert session.activity.last(1)[0].rule == "outdated"
