"""Feedback on suggestions, and ordinary completion, over the real transport with the real model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infill.statistics import read
from tests.lsp.client import Client
from tests.lsp.test_server import CODE, CURSOR, LAST


def first_item(client: Client, uri: str) -> dict[str, Any]:
    client.open(uri, CODE)
    return client.inline(uri, LAST, CURSOR)[0]


def identifier(item: dict[str, Any]) -> str:
    return str(item["command"]["arguments"][0])


def test_accepted_text_is_not_offered_again(shared: Client, uri: str) -> None:
    item = first_item(shared, uri)
    text = item["insertText"]
    shared.type(uri, LAST, CURSOR, text)
    shared.command("gesso.accepted", identifier(item))
    after = shared.inline(uri, LAST, CURSOR + len(text))
    assert [one["insertText"] for one in after] != [text]


def test_a_deleted_suggestion_is_not_offered_again(shared: Client, uri: str) -> None:
    item = first_item(shared, uri)
    text = item["insertText"]
    end = {"line": LAST, "character": CURSOR + len(text)}
    shared.type(uri, LAST, CURSOR, text)
    shared.command("gesso.accepted", identifier(item))
    shared.change(uri, {"range": {"start": {"line": LAST, "character": CURSOR}, "end": end}, "text": ""})
    shared.type(uri, LAST, CURSOR, text[0])
    assert [one["insertText"] for one in shared.inline(uri, LAST, CURSOR + 1)] != [text[1:]]


def test_the_rest_of_a_partly_accepted_suggestion_stays(shared: Client, uri: str) -> None:
    item = first_item(shared, uri)
    text = item["insertText"]
    assert len(text) > 3
    shared.type(uri, LAST, CURSOR, text[:2])
    shared.notify("textDocument/didPartiallyAcceptCompletion", {"item": item, "acceptedLength": 2})
    rest = shared.inline(uri, LAST, CURSOR + 2)
    assert [one["insertText"] for one in rest] == [text[2:]]
    assert identifier(rest[0]) == identifier(item)


def test_partial_acceptances_are_counted_once_and_by_language(environment: dict[str, str], tmp_path: Path) -> None:
    """Editors send the total length each time. Text that is there when the document is closed counts as kept."""
    client = Client({**environment, "XDG_DATA_HOME": str(tmp_path / "data")})
    client.initialize(settings={"delayMs": 0, "minConfidence": 0, "eagerness": "eager"})
    client.wait_until_ready()
    for name in ("parts.py", "whole.py"):
        uri = (tmp_path / name).as_uri()
        item = first_item(client, uri)
        text = item["insertText"]
        assert len(text) > 3
        client.type(uri, LAST, CURSOR, text)
        if name == "parts.py":
            for length in (1, 3, 3):
                client.notify("textDocument/didPartiallyAcceptCompletion", {"item": item, "acceptedLength": length})
        else:
            client.command("gesso.accepted", identifier(item))
        client.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
    assert client.close() == 0
    rows = read(tmp_path / "data" / "gesso" / "statistics.sqlite")
    assert [row.characters for row in rows if row.event == "partly"] == [1, 2]
    assert [(row.language, row.value) for row in rows if row.event == "kept"] == [("python", 1.0)]


def test_a_rejected_suggestion_comes_again_only_by_hand(shared: Client, uri: str) -> None:
    item = first_item(shared, uri)
    shared.command("gesso.rejected", identifier(item))
    assert item["insertText"] not in [one["insertText"] for one in shared.inline(uri, LAST, CURSOR)]
    assert shared.inline(uri, LAST, CURSOR, invoked=True)


@pytest.mark.parametrize("arguments", [["no such id"], ["no such id", 3]])
def test_an_unknown_suggestion_is_ignored(shared: Client, arguments: list[Any]) -> None:
    name = "gesso.accepted" if len(arguments) == 1 else "gesso.partlyAccepted"
    assert shared.command(name, *arguments) is None


@pytest.fixture(scope="module")
def plain(environment: dict[str, str]) -> Iterator[Client]:
    """A client without inline completion that counts columns in bytes."""
    client = Client(environment)
    options = {"delayMs": 0, "minConfidence": 0, "eagerness": "eager"}
    client.initialize({"general": {"positionEncodings": ["utf-8"]}}, settings=options)
    client.wait_until_ready()
    yield client
    client.kill()


def popup(client: Client, uri: str, line: int, character: int) -> list[dict[str, Any]]:
    params = {
        "textDocument": {"uri": uri},
        "position": {"line": line, "character": character},
        "context": {"triggerKind": 1},
    }
    items: list[dict[str, Any]] = client.request("textDocument/completion", params)["items"]
    return items


def test_ordinary_completion_returns_one_item_sorted_last(plain: Client, tmp_path: Path) -> None:
    uri = (tmp_path / "popup.py").as_uri()
    plain.open(uri, CODE)
    (item,) = popup(plain, uri, LAST, CURSOR)
    assert item["sortText"] == "\uffff" and item["detail"] == "Gesso"
    edit = item["textEdit"]
    assert edit["newText"].startswith("ba")
    assert edit["range"] == {
        "start": {"line": LAST, "character": CURSOR - 2},
        "end": {"line": LAST, "character": CURSOR},
    }
    assert item["filterText"] == "ba"
    assert item["command"]["command"] == "gesso.accepted"


def test_columns_are_bytes_if_the_client_uses_utf_8(plain: Client, tmp_path: Path) -> None:
    uri = (tmp_path / "bytes.py").as_uri()
    line = "    crab = '\N{CRAB}'; total = tot"
    plain.open(uri, "def f(total):\n" + line + "\n")
    column = len(line.encode())
    (item,) = popup(plain, uri, 1, column)
    assert item["textEdit"]["range"]["end"] == {"line": 1, "character": column}
    assert item["textEdit"]["range"]["start"] == {"line": 1, "character": column - 3}
