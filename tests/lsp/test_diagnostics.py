"""Linting in the editor and the actions for findings, over the real transport with scripted findings.

The scripted service finds the words `wrnog` and `plsu`, and logs its requests.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import pytest
from lsprotocol import types

from infill.engine_protocol import EngineState
from infill.findings import Finding, LintRequest
from infill.service.exchange import ServiceBusy
from lsp.diagnostics import NEAR_LINES, PAUSE_S, Diagnostics
from lsp.session import Session
from lsp.settings import LspSettings
from tests.lsp.client import MODERN, ROOT, Client
from tests.virtual_time import run
from tests.waiting import until

SERVER = (str(ROOT / "tests" / "lsp" / "scripted_server.py"),)
LITERALS = {"codeActionLiteralSupport": {"codeActionKind": {"valueSet": ["quickfix"]}}}
PUSH: dict[str, Any] = {
    **MODERN,
    "textDocument": {**MODERN["textDocument"], "codeAction": LITERALS},
    "workspace": {"workspaceEdit": {"documentChanges": True}},
}
HELD = {**PUSH, "textDocument": {**PUSH["textDocument"], "diagnostic": {}}}
PULL = {**HELD, "workspace": {**PUSH["workspace"], "diagnostics": {"refreshSupport": True}}}
REST_S = 0.5  # five times the scripted server's pause
CODE = "def first(a):\n    b = a\n    return wrnog\n\n\ndef second():\n    return 2\n"
SHOWN = {"lintInclude": ["wrong-name", "misspelled"]}  # off by default
PUBLISH = "textDocument/publishDiagnostics"


@dataclass
class Linted:
    """A client, a document of its own, and the log of the scripted service."""

    client: Client
    uri: str
    log: Path

    def open(self, text: str = CODE, language: str = "python") -> None:
        self.client.open(self.uri, text, language)

    def linted(self) -> list[str]:
        """The chunks of this document that were sent to the service, in order."""
        return [part for note in self.notes() for part in note["asked"]]

    def notes(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [note for note in map(json.loads, lines) if note["path"] and Path(note["path"]).as_uri() == self.uri]

    def published(self) -> list[dict[str, Any]]:
        """Everything published for this document."""
        messages = [one["params"] for one in self.client.received if one["method"] == PUBLISH]
        return [params for params in messages if params["uri"] == self.uri]

    def shown(self) -> list[str]:
        """The codes and positions of the diagnostics published last."""
        return _codes(self.published()[-1]["diagnostics"]) if self.published() else []

    def wait(self, shown: list[str]) -> None:
        self.client.wait(lambda: self.shown() == shown)

    def wait_until_linted(self, condition: Callable[[list[str]], bool]) -> None:
        until(lambda: condition(self.linted()), self.linted)

    def rest(self) -> None:
        """Waits longer than linting usually takes, for what must not happen, and processes messages meanwhile."""
        end = time.monotonic() + REST_S
        while time.monotonic() < end:
            self.client.command("gesso.status")
            time.sleep(0.02)

    def replace(self, line: int, start: int, end: int, text: str) -> None:
        ends = [{"line": line, "character": character} for character in (start, end)]
        self.client.change(self.uri, {"range": {"start": ends[0], "end": ends[1]}, "text": text})

    def actions(self, line: int, character: int, **context: Any) -> list[dict[str, Any]]:
        here = {"line": line, "character": character}
        params = {
            "textDocument": {"uri": self.uri},
            "range": {"start": here, "end": here},
            "context": {"diagnostics": [], **context},
        }
        actions: list[dict[str, Any]] = self.client.request("textDocument/codeAction", params)
        return actions

    def action(self, title: str, line: int, character: int) -> dict[str, Any]:
        return next(one for one in self.actions(line, character) if one["title"].startswith(title))

    def apply(self, action: dict[str, Any]) -> None:
        """Applies an action like an editor: the edit, then the command."""
        for change in action.get("edit", {}).get("documentChanges", ()):
            assert change["textDocument"] == {"uri": self.uri, "version": self.client.versions[self.uri]}
            self.client.change(self.uri, *({"range": one["range"], "text": one["newText"]} for one in change["edits"]))
        if "command" in action:
            self.client.command(action["command"]["command"], *action["command"]["arguments"])

    def start_pull(self, previous: str | None = None) -> int:
        params = {"textDocument": {"uri": self.uri}, "identifier": "gesso", "previousResultId": previous}
        return self.client.start_request("textDocument/diagnostic", params)

    def pull(self, previous: str | None = None) -> dict[str, Any]:
        report: dict[str, Any] = self.client.result(self.start_pull(previous))
        return report

    def error(self, request: int) -> dict[str, Any]:
        self.client.wait(lambda: request in self.client.answers)
        error: dict[str, Any] = self.client.answers.pop(request)["error"]
        return error


def _codes(diagnostics: list[dict[str, Any]]) -> list[str]:
    return [
        f"{one['code']} {one['range']['start']['line']}:{one['range']['start']['character']}" for one in diagnostics
    ]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lint") / "log"


@pytest.fixture(scope="module")
def start(environment: dict[str, str], log: Path) -> Iterator[Callable[..., Client]]:
    """Starts servers, and stops them all at the end."""
    clients: list[Client] = []

    def begin(capabilities: dict[str, Any], **settings: Any) -> Client:
        extended = {**environment, "PYTHONPATH": str(ROOT), "SCRIPTED_LINT_LOG": str(log)}
        client = Client(extended, server=SERVER)
        clients.append(client)
        client.initialize(capabilities, settings={**SHOWN, **settings})
        client.wait_until_ready()
        return client

    yield begin
    for client in clients:
        client.kill()


@pytest.fixture(scope="module")
def pushed(start: Callable[..., Client]) -> Client:
    return start(PUSH)


@pytest.fixture(scope="module")
def pulling(start: Callable[..., Client]) -> Client:
    return start(PULL)


@pytest.fixture(scope="module")
def waiting(start: Callable[..., Client]) -> Client:
    """A client that pulls and does not support refresh."""
    return start(HELD)


def _uri(tmp_path: Path) -> str:
    return (tmp_path / "code.py").as_uri()


@pytest.fixture
def doc(pushed: Client, tmp_path: Path, log: Path) -> Iterator[Linted]:
    one = Linted(pushed, _uri(tmp_path), log)
    yield one
    pushed.notify("textDocument/didClose", {"textDocument": {"uri": one.uri}})


@pytest.fixture
def pull_doc(pulling: Client, tmp_path: Path, log: Path) -> Linted:
    return Linted(pulling, _uri(tmp_path), log)


@pytest.fixture
def held_doc(waiting: Client, tmp_path: Path, log: Path) -> Linted:
    return Linted(waiting, _uri(tmp_path), log)


def test_a_finding_is_published_as_a_hint_with_its_version(doc: Linted) -> None:
    doc.open()
    doc.wait(["wrong-name 2:11"])
    (one,) = doc.published()
    assert one["version"] == 1
    (diagnostic,) = one["diagnostics"]
    assert diagnostic["range"]["end"] == {"line": 2, "character": 16}
    assert (diagnostic["source"], diagnostic["severity"]) == ("gesso", 4)
    assert diagnostic["message"] == "`wrnog` looks wrong." and diagnostic["data"]["replacement"] == "wrong"


def test_only_the_changed_function_is_linted_again(doc: Linted) -> None:
    doc.open()
    doc.wait(["wrong-name 2:11"])
    assert doc.linted() == ["def first(a):\n    b = a\n    return wrnog", "def second():\n    return 2"]
    doc.replace(6, 11, 12, "plsu")
    doc.wait(["wrong-name 2:11", "misspelled 6:11"])
    assert doc.linted()[2:] == ["def second():\n    return plsu"]
    doc.client.type(doc.uri, 0, 0, "import os\n\n\n")
    doc.wait(["wrong-name 5:11", "misspelled 9:11"])
    doc.wait_until_linted(lambda chunks: chunks[3:] == ["import os"])
    doc.rest()
    assert len(doc.linted()) == 4


def test_a_finding_stays_while_its_function_is_edited_elsewhere(doc: Linted) -> None:
    doc.open()
    doc.wait(["wrong-name 2:11"])
    for number, character in enumerate("long_name"):
        doc.client.type(doc.uri, 1, 9 + number, character)
        time.sleep(0.03)
    doc.wait_until_linted(lambda chunks: "def first(a):\n    b = along_name\n    return wrnog" in chunks)
    doc.rest()
    assert all(_codes(one["diagnostics"]) == ["wrong-name 2:11"] for one in doc.published())


def test_a_finding_goes_with_its_text_and_comes_back_from_the_cache(doc: Linted) -> None:
    doc.open()
    doc.wait(["wrong-name 2:11"])
    doc.client.type(doc.uri, 2, 16, "s")
    doc.wait([])
    assert doc.published()[-1]["version"] == 2
    doc.wait_until_linted(lambda chunks: any("wrnogs" in one for one in chunks))
    doc.wait(["wrong-name 2:11"])
    before = len(doc.linted())
    doc.replace(2, 16, 17, "")
    doc.wait(["wrong-name 2:11"])
    doc.rest()
    assert len(doc.linted()) == before


def test_a_superseded_run_is_cancelled(doc: Linted) -> None:
    doc.open("def first():\n    return endless\n")
    doc.wait_until_linted(bool)
    doc.replace(1, 11, 18, "wrnog")
    doc.wait(["wrong-name 1:11"])


def test_nothing_is_linted_while_the_user_types() -> None:
    asked: list[str] = []

    async def lint(request: LintRequest) -> tuple[Finding, ...]:
        asked.extend(request.text[start:end] for start, end in request.ranges)
        return ()

    async def play() -> None:
        session = Session(cast(Any, None))
        session.settings = LspSettings(lint=True)
        session.engine.state = EngineState("ready", "tiny")
        session.engine.lint = lint  # type: ignore[method-assign]
        diagnostics = Diagnostics(session, lambda snapshot: None)
        document = types.TextDocumentItem("untitled:one.py", "python", 1, "def first():\n    return 1\n")
        before = session.documents.open(document)
        session.trees.opened(before)
        diagnostics.opened(before)
        for number in range(20):
            await asyncio.sleep(0.99 * PAUSE_S)
            at = types.Position(1, 12 + number)
            change = types.TextDocumentContentChangePartial(range=types.Range(at, at), text="0")
            after = session.documents.change(types.VersionedTextDocumentIdentifier(2 + number, before.uri), [change])
            session.trees.changed(before, after)
            diagnostics.changed(after)
            before = after
        await asyncio.sleep(2 * PAUSE_S)
        session.trees.close()

    run(play())
    assert asked == ["def first():\n    return 1" + "0" * 20]


def test_only_code_near_the_user_is_linted(doc: Linted) -> None:
    functions = [f"def f{number}():\n    return wrnog{number}\n" for number in range(200)]
    doc.open("".join(functions))
    doc.wait_until_linted(lambda chunks: f"f{NEAR_LINES // 2}()" in "".join(chunks))
    doc.rest()
    far = len(doc.linted())
    assert "def f0():" in doc.linted()[0] and 20 < far < 60
    doc.actions(398, 0)
    doc.wait_until_linted(lambda chunks: f"f{(398 - NEAR_LINES) // 2}()" in "".join(chunks))  # the farthest is the last
    doc.client.wait(lambda: any(shown.endswith("399:11") for shown in doc.shown()))
    doc.rest()
    assert len(doc.linted()) < 120 and len(set(doc.linted())) == len(doc.linted())
    assert "wrong-name 1:11" in doc.shown()


def test_of_many_opened_documents_only_the_last_are_linted_until_the_user_visits_others(
    pushed: Client, tmp_path: Path, log: Path
) -> None:
    docs = [Linted(pushed, (tmp_path / f"{number}.py").as_uri(), log) for number in range(12)]
    for doc in docs:
        doc.open()
    for doc in docs[-4:]:
        doc.wait(["wrong-name 2:11"])
    docs[-1].rest()
    assert [bool(doc.linted()) for doc in docs] == [False] * 8 + [True] * 4
    docs[0].actions(0, 0)
    docs[0].wait(["wrong-name 2:11"])
    assert not docs[1].linted()


def test_code_with_syntax_errors_is_not_linted(doc: Linted) -> None:
    doc.open("def first():\n    return wrnog(\n\n\ndef second():\n    return plsu\n")
    doc.wait(["misspelled 5:11"])
    assert not any("wrnog" in one for one in doc.linted())


def test_code_that_the_engine_cannot_lint_is_not_sent_again(doc: Linted) -> None:

    def refusals() -> int:
        return sum("could not lint a part of a document" in line for line in list(doc.client.log))

    before = refusals()
    doc.open("def first():\n    return input\n")
    until(lambda: refusals() > before)
    doc.client.type(doc.uri, 0, 0, "\n")
    doc.rest()
    assert len(doc.linted()) == 1 and doc.published() == []


def test_many_edits_at_once_lose_no_finding_and_cost_no_request(doc: Linted) -> None:
    doc.open(CODE)
    doc.wait(["wrong-name 2:11"])
    line = {"start": {"line": 3, "character": 0}, "end": {"line": 3, "character": 0}}
    doc.client.change(doc.uri, *({"range": line, "text": "\n"} for _ in range(100)))
    doc.wait(["wrong-name 2:11"])
    doc.rest()
    assert doc.shown() == ["wrong-name 2:11"] and len(doc.linted()) == 2


def test_line_ends_and_wide_characters(doc: Linted) -> None:
    doc.open('def first():\r\n    return "😀" + wrnog\r\n')
    doc.wait(["wrong-name 1:18"])
    (fix, *_) = doc.actions(1, 20)
    assert fix["edit"]["documentChanges"][0]["edits"][0]["range"]["end"] == {"line": 1, "character": 23}


def test_a_closed_document_is_cleared(doc: Linted) -> None:
    doc.open()
    doc.wait(["wrong-name 2:11"])
    doc.client.notify("textDocument/didClose", {"textDocument": {"uri": doc.uri}})
    doc.wait([])
    doc.rest()
    assert len(doc.published()) == 2


@pytest.mark.parametrize("name", [".env", "secrets.py", "ignored.py"])
def test_a_private_file_is_never_sent(pushed: Client, tmp_path: Path, log: Path, name: str) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("ignored.py\nsecrets.py\n")
    doc = Linted(pushed, (tmp_path / name).as_uri(), log)
    doc.open()
    doc.rest()
    assert doc.notes() == [] and doc.published() == [] and doc.actions(2, 12) == []


def test_a_file_that_becomes_private_is_cleared(doc: Linted, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    doc.open()
    doc.wait(["wrong-name 2:11"])
    (tmp_path / ".gitignore").write_text("*.py\n")
    doc.client.notify("textDocument/didSave", {"textDocument": {"uri": (tmp_path / ".gitignore").as_uri()}})
    doc.wait([])


def test_the_actions_for_a_finding(doc: Linted) -> None:
    doc.open()
    doc.wait(["wrong-name 2:11"])
    actions = doc.actions(2, 13)
    assert [one["title"] for one in actions] == [
        "Change to `wrong`",
        "Ignore here",
        "Ignore this kind (wrong-name)",
        "Dismiss",
    ]
    assert [one.get("isPreferred") for one in actions] == [True, None, None, None]
    assert all(
        one["kind"] == "quickfix" and one["diagnostics"] == doc.published()[-1]["diagnostics"] for one in actions
    )
    assert doc.actions(1, 3) == []
    doc.apply(actions[0])
    doc.wait([])
    doc.wait_until_linted(lambda chunks: "def first(a):\n    b = a\n    return wrong" in chunks)


@pytest.mark.parametrize(
    ("only", "is_wanted"),
    [
        (["quickfix"], True),
        ([""], True),
        (["refactor", "quickfix"], True),
        (["source.fixAll"], False),
        (["quick"], False),
    ],
)
def test_only_the_requested_kinds_of_actions(doc: Linted, only: list[str], is_wanted: bool) -> None:
    doc.open()
    doc.wait(["wrong-name 2:11"])
    assert bool(doc.actions(2, 13, only=only)) is is_wanted


def test_no_action_on_a_line_with_a_compiler_error(doc: Linted) -> None:
    doc.open()
    doc.wait(["wrong-name 2:11"])
    ours = doc.published()[-1]["diagnostics"]
    span = {"start": {"line": 2, "character": 0}, "end": {"line": 2, "character": 4}}
    theirs = {"range": span, "message": "no", "source": "compiler", "severity": 1}
    assert doc.actions(2, 13, diagnostics=ours)
    assert doc.actions(2, 13, diagnostics=[*ours, {**theirs, "severity": 2}])
    assert doc.actions(2, 13, diagnostics=[*ours, theirs]) == []


def test_ignore_here_adds_a_comment(doc: Linted) -> None:
    doc.open()
    doc.wait(["wrong-name 2:11"])
    doc.apply(doc.action("Ignore here", 2, 13))
    doc.wait([])
    doc.wait_until_linted(lambda chunks: chunks[-1].endswith("return wrnog  # gesso: ignore"))
    doc.rest()
    assert doc.shown() == []


def test_ignore_here_in_another_language(doc: Linted) -> None:
    doc.open("function f() {\n  return wrnog;\n}\n", "javascript")
    doc.wait(["wrong-name 1:9"])
    edit = doc.action("Ignore here", 1, 10)["edit"]["documentChanges"][0]["edits"][0]
    assert edit["newText"] == "  // gesso: ignore" and edit["range"]["start"] == {"line": 1, "character": 15}


@pytest.mark.parametrize("line", ['x = wrnog + """', "x = wrnog + \\"])
def test_no_ignore_comment_in_a_string_or_continued_line(doc: Linted, line: str) -> None:
    end = '"""' if line.endswith('"') else "1"
    doc.open(f"{line}\n{end}\n")
    doc.wait(["wrong-name 0:4"])
    assert [one["title"].split()[0] for one in doc.actions(0, 5)] == ["Change", "Ignore", "Dismiss"]
    assert not any(one["title"] == "Ignore here" for one in doc.actions(0, 5))


def test_a_dismissed_finding_stays_dismissed(doc: Linted) -> None:
    doc.open(CODE + "\n\ndef third():\n    return wrnog\n")
    doc.wait(["wrong-name 2:11", "wrong-name 10:11"])
    doc.apply(doc.action("Dismiss", 2, 13))
    doc.wait(["wrong-name 10:11"])
    doc.client.type(doc.uri, 0, 0, "import os\n\n\n")
    doc.wait(["wrong-name 13:11"])
    doc.client.type(doc.uri, 5, 16, " + 1")
    doc.client.type(doc.uri, 4, 8, "c + ")
    doc.wait_until_linted(lambda chunks: any("c + a" in one for one in chunks))
    doc.rest()
    assert doc.shown() == ["wrong-name 13:11"]
    doc.client.notify("textDocument/didClose", {"textDocument": {"uri": doc.uri}})
    doc.open("def first(a):\n    b = c + a\n    return wrnog + 1\n\n\ndef fourth():\n    return wrnog\n")
    doc.wait(["wrong-name 6:11"])


def test_ignoring_a_kind(start: Callable[..., Client], tmp_path: Path, log: Path) -> None:
    doc = Linted(start(PUSH), _uri(tmp_path), log)
    doc.open(CODE.replace("return 2", "return plsu"))
    doc.wait(["wrong-name 2:11", "misspelled 6:11"])
    doc.apply(doc.action("Ignore this kind", 2, 13))
    doc.wait(["misspelled 6:11"])
    messages = [one["params"] for one in doc.client.received if one["method"] == "window/showMessage"]
    assert (
        messages[-1]["type"] == 3
        and "gesso.lintIgnore" in messages[-1]["message"]
        and "wrong-name" in messages[-1]["message"]
    )
    doc.client.type(doc.uri, 6, 15, " + wrnog")
    doc.wait_until_linted(lambda chunks: any("plsu + wrnog" in one for one in chunks))
    assert doc.notes()[-1]["off"] == ["wrong-name"]


def test_a_kind_ignored_by_a_setting(start: Callable[..., Client], tmp_path: Path, log: Path) -> None:
    doc = Linted(start(PUSH, lintIgnore=["wrong-name"], lintSeverity="warning"), _uri(tmp_path), log)
    doc.open(CODE.replace("return 2", "return plsu"))
    doc.wait(["misspelled 6:11"])
    assert doc.published()[-1]["diagnostics"][0]["severity"] == 2
    doc.client.notify("workspace/didChangeConfiguration", {"settings": {"gesso": {**SHOWN, "lintSeverity": "hint"}}})
    doc.wait(["wrong-name 2:11", "misspelled 6:11"])
    assert doc.published()[-1]["diagnostics"][0]["severity"] == 4


def test_switched_off_and_on_again(start: Callable[..., Client], tmp_path: Path, log: Path) -> None:
    doc = Linted(start(PUSH), _uri(tmp_path), log)
    doc.open()
    for off, on in (({"lint": False}, {"lint": True}), ({"enabled": False}, {"enabled": True})):
        doc.wait(["wrong-name 2:11"])
        doc.client.notify("workspace/didChangeConfiguration", {"settings": {"gesso": {**SHOWN, **off}}})
        doc.wait([])
        doc.client.notify("workspace/didChangeConfiguration", {"settings": {"gesso": {**SHOWN, **on}}})
    doc.wait(["wrong-name 2:11"])
    doc.client.command("gesso.setEnabled", False)
    doc.wait([])
    assert len(doc.linted()) == 2, "cached findings are still valid"


def test_a_model_without_lint_calibration_lints_only_if_the_user_enables_it(
    start: Callable[..., Client], tmp_path: Path, log: Path
) -> None:
    doc = Linted(start(PUSH, model="no lint"), _uri(tmp_path), log)
    doc.open()
    doc.rest()
    assert doc.notes() == [] and doc.published() == []
    settings = {"gesso": {**SHOWN, "model": "no lint", "lint": True}}
    doc.client.notify("workspace/didChangeConfiguration", {"settings": settings})
    doc.wait(["wrong-name 2:11"])


def test_a_language_that_is_switched_off(start: Callable[..., Client], tmp_path: Path, log: Path) -> None:
    doc = Linted(start(PUSH, languages={"python": False}), _uri(tmp_path), log)
    doc.open()
    doc.rest()
    assert doc.notes() == []


def test_a_client_without_versioned_edits_gets_plain_edits(
    start: Callable[..., Client], tmp_path: Path, log: Path
) -> None:
    doc = Linted(start({"textDocument": {"codeAction": LITERALS}}), _uri(tmp_path), log)
    doc.open()
    doc.wait(["wrong-name 2:11"])
    assert doc.actions(2, 13)[0]["edit"]["changes"][doc.uri][0]["newText"] == "wrong"


def test_a_client_that_supports_only_commands_gets_no_actions(
    start: Callable[..., Client], tmp_path: Path, log: Path
) -> None:
    doc = Linted(start({}), _uri(tmp_path), log)
    doc.open()
    doc.wait(["wrong-name 2:11"])
    assert doc.actions(2, 13) == []


def test_a_client_either_pulls_or_is_pushed_to(pushed: Client, pull_doc: Linted) -> None:
    with pytest.raises(LookupError) as error:
        pushed.request("textDocument/diagnostic", {"textDocument": {"uri": "file:///x.py"}})
    assert error.value.args[0] == -32601
    pull_doc.open()
    pull_doc.client.wait(lambda: _refreshes(pull_doc) > 0)
    assert _codes(pull_doc.pull()["items"]) == ["wrong-name 2:11"]
    assert pull_doc.published() == []


def _refreshes(doc: Linted) -> int:
    return sum(one["method"] == "workspace/diagnostic/refresh" for one in doc.client.received)


def test_a_pull_returns_at_once_and_a_refresh_follows(pull_doc: Linted) -> None:
    doc, before = pull_doc, _refreshes(pull_doc)
    with doc.client.together():
        doc.open()
        pull = doc.start_pull()
    first = doc.client.result(pull)
    assert first["kind"] == "full" and first["items"] == []
    doc.client.wait(lambda: _refreshes(doc) == before + 1)
    second = doc.pull(first["resultId"])
    assert _codes(second["items"]) == ["wrong-name 2:11"] and second["resultId"] != first["resultId"]
    assert doc.pull(second["resultId"]) == {"kind": "unchanged", "resultId": second["resultId"]}
    assert doc.pull("another")["kind"] == "full"
    doc.client.type(doc.uri, 0, 0, "\n")
    moved = doc.pull(second["resultId"])
    assert _codes(moved["items"]) == ["wrong-name 3:11"]
    doc.rest()
    assert _refreshes(doc) == before + 1, "the client has everything"
    doc.client.command("gesso.dismiss", doc.uri, moved["items"][0]["data"]["number"])
    doc.client.wait(lambda: _refreshes(doc) == before + 2)
    assert doc.pull(moved["resultId"])["items"] == []


def test_pulling_a_closed_document_returns_nothing(pull_doc: Linted, held_doc: Linted) -> None:
    assert pull_doc.pull()["items"] == held_doc.pull()["items"] == []


def test_a_pull_without_refresh_support_waits_for_the_findings(held_doc: Linted) -> None:
    held_doc.open()
    assert _codes(held_doc.pull()["items"]) == ["wrong-name 2:11"]
    assert not _refreshes(held_doc)


def test_a_superseded_pull_is_answered_as_cancelled(held_doc: Linted) -> None:
    doc = held_doc
    doc.open("def first():\n    return endless\n")
    older, newer = doc.start_pull(), doc.start_pull()
    assert doc.error(older) == {"code": -32802, "message": "Server Cancelled", "data": {"retriggerRequest": False}}
    doc.replace(1, 11, 18, "wrnog")
    assert doc.error(newer)["data"] == {"retriggerRequest": True}
    assert _codes(doc.pull()["items"]) == ["wrong-name 1:11"]
    doc.replace(1, 11, 16, "endless")
    last = doc.start_pull()
    doc.client.notify("textDocument/didClose", {"textDocument": {"uri": doc.uri}})
    assert doc.error(last)["data"] == {"retriggerRequest": False}
    assert not any("ERROR" in line for line in doc.client.log)


def test_a_pull_cancelled_by_the_client(held_doc: Linted) -> None:
    doc = held_doc
    doc.open("def first():\n    return endless\n")
    request = doc.start_pull()
    doc.client.notify("$/cancelRequest", {"id": request})
    assert doc.error(request)["code"] == -32800
    doc.replace(1, 11, 18, "wrnog")
    assert _codes(doc.pull()["items"]) == ["wrong-name 1:11"]


@pytest.mark.parametrize(
    ("command", "arguments"), [("gesso.dismiss", ["file:///nowhere.py", 1]), ("gesso.ignoreKind", ["no such kind"])]
)
def test_commands_for_unknown_findings_are_ignored(pushed: Client, command: str, arguments: list[Any]) -> None:
    assert pushed.command(command, *arguments) is None


def test_a_finding_links_to_the_description_of_its_kind(doc: Linted) -> None:
    doc.open()
    doc.wait(["wrong-name 2:11"])
    link = doc.published()[-1]["diagnostics"][0]["codeDescription"]["href"]
    page = Path(unquote(urlsplit(link).path))
    assert urlsplit(link).fragment == "wrong-name" and "\n## wrong-name\n" in page.read_text("utf-8")


CAMEL = "def f(first_name, last_name, other_value, next_item, total_count):\n    plsUm = 1\n    return plsUm\n"


def test_style_is_linted_if_a_setting_includes_it(start: Callable[..., Client], tmp_path: Path, log: Path) -> None:
    doc = Linted(start(PUSH, lintInclude=["style-naming", "wrong-name"]), _uri(tmp_path), log)
    doc.open(CAMEL)
    doc.wait(["style-naming 1:4"])
    assert doc.notes()[-1]["on"] == ["style-naming", "wrong-name"] and doc.notes()[-1]["off"] == []
    fix = doc.actions(1, 5)[0]
    assert fix["title"] == "Change to `pls_um` in 2 places"
    doc.client.type(doc.uri, 2, 0, "    print(plsUm)\n")
    doc.wait_until_linted(lambda chunks: any("print" in one for one in chunks))
    doc.apply(doc.action("Change", 1, 5))
    doc.wait([])
    doc.wait_until_linted(
        lambda chunks: (
            chunks[-1]
            == CAMEL.replace("plsUm", "pls_um").replace("    return", "    print(pls_um)\n    return").rstrip()
        )
    )
    doc.client.notify("workspace/didChangeConfiguration", {"settings": {"gesso": {"lintInclude": []}}})
    doc.client.change(doc.uri, {"text": CAMEL})
    doc.rest()
    assert doc.shown() == [], "cached style findings are hidden"


def test_kinds_that_are_off_by_default_are_not_shown(start: Callable[..., Client], tmp_path: Path, log: Path) -> None:
    doc = Linted(start(PUSH, lintInclude=[]), _uri(tmp_path), log)
    doc.open(CAMEL + "\n\ndef g():\n    return 1\n")
    doc.rest()
    assert doc.shown() == [] and doc.notes()[-1]["on"] == []


def test_no_fix_if_a_name_can_no_longer_be_renamed_safely(
    start: Callable[..., Client], tmp_path: Path, log: Path
) -> None:
    doc = Linted(start(PUSH, lintInclude=["style-naming"]), _uri(tmp_path), log)
    doc.open(CAMEL + "\n\ndef g():\n    return 1\n")
    doc.wait(["style-naming 1:4"])
    doc.client.type(doc.uri, 6, 11, "plsUm + ")
    assert [one["title"] for one in doc.actions(1, 5)][0] == "Ignore here"


def _chatty(tmp_path: Path) -> str:
    """A model folder whose family follows instructions."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return str(tmp_path / "model")


def test_a_finding_is_explained_if_the_model_can(start: Callable[..., Client], tmp_path: Path, log: Path) -> None:
    doc = Linted(start(PUSH, model=_chatty(tmp_path)), _uri(tmp_path), log)
    doc.open()
    doc.wait(["wrong-name 2:11"])
    action = doc.action("Explain", 2, 13)
    assert action["command"]["command"] == "gesso.lint.explain"
    assert doc.client.command("gesso.lint.explain", *action["command"]["arguments"]) == "Since `wrong` it is."
    messages = [one["params"] for one in doc.client.received if one["method"] == "window/showMessage"]
    assert messages[-1] == {"type": 3, "message": "Since `wrong` it is."}
    assert doc.client.command("gesso.lint.explain", doc.uri, 999) is None


def test_a_failed_explanation_shows_a_sentence(doc: Linted) -> None:
    doc.open("def f():\n    return wrnog, 'mute'\n")
    doc.wait(["wrong-name 1:11"])
    number = doc.published()[-1]["diagnostics"][0]["data"]["number"]
    assert not any(one["title"] == "Explain" for one in doc.actions(1, 12))
    assert doc.client.command("gesso.lint.explain", doc.uri, number) is None
    messages = [one["params"] for one in doc.client.received if one["method"] == "window/showMessage"]
    assert messages[-1] == {"type": 2, "message": "The model is mute; choose another."}


@pytest.mark.parametrize(("refusals", "explanation"), [(2, "Since."), (3, None)])
def test_an_explanation_is_asked_for_again_while_the_service_is_busy(refusals: int, explanation: str | None) -> None:
    asked = 0

    async def lint(request: LintRequest) -> tuple[Finding, ...]:
        nonlocal asked
        asked += 1
        if asked <= refusals:
            raise ServiceBusy("Too many requests.", retry_s=0.0)
        return (replace(request.findings[0], explanation="Since."),)

    async def nothing(_: object) -> None:
        return None

    tracked = SimpleNamespace(start=0, end=1, code="misspelled", message="m", replacement="y")
    document = SimpleNamespace(
        finding=lambda number: tracked, snapshot=SimpleNamespace(text="x", language="python", path=None)
    )
    diagnostics = Diagnostics.__new__(Diagnostics)
    diagnostics.session = cast(Any, SimpleNamespace(private_reason=nothing, engine=SimpleNamespace(lint=lint)))
    diagnostics._documents = cast(Any, {"file:///a.py": document})
    if explanation is None:
        with pytest.raises(ServiceBusy):
            asyncio.run(diagnostics.explain("file:///a.py", 1))
    else:
        assert asyncio.run(diagnostics.explain("file:///a.py", 1)) == explanation
    assert asked == 3
