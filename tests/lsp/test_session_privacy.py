"""Private files over the real transport: URIs, folders, changes on disk, neighbours. No model is needed."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from lsprotocol import types

from lsp.client_settings import pulled_settings
from lsp.documents import uri_path
from lsp.session import Session
from lsp.settings import LspSettings
from tests.folders import put
from tests.lsp.client import MODERN, Client

CODE = "def total(items):\n    return \n"


class Quiet:
    """A client that shows nothing."""

    def show_state(self, state: object) -> None: ...

    def warn(self, sentence: str) -> None: ...


def reason(session: Session, uri: str, text: str = CODE) -> str | None:
    """The rule for a document, which is opened unless it is open."""
    found = session.documents.get(uri)
    snapshot = found or session.documents.open(types.TextDocumentItem(uri, "python", 1, text))
    skipped = asyncio.run(session.private_reason(snapshot))
    return None if skipped is None else skipped.sentence


@pytest.fixture
def session(empty_home: Path) -> Iterator[Session]:
    found = Session(Quiet())
    yield found
    found.trees.close()


@pytest.mark.parametrize("folder", ["plain", "mein projekt", "größe", "100%", "a#b", "a?b", "a;b", "a%20b", "[a]"])
@pytest.mark.parametrize("scheme", ["file://", "vscode-notebook-cell:", "untitled:", "vscode-remote://ssh+x"])
def test_the_uri_of_a_document_is_decoded(session: Session, repository: Path, folder: str, scheme: str) -> None:
    put(repository, {".gitignore": f"/{folder.replace('[', '?')}/local_*\n"})
    path = f"{scheme}{quote(str(repository))}/{quote(folder)}"
    tail = "#W0sZmlsZQ%3D%3D" if "notebook" in scheme else ""
    assert reason(session, f"{path}/local_keys.ipynb{tail}") == "This file is ignored by .gitignore."
    assert reason(session, f"{path}/keys.ipynb{tail}") is None


def test_a_name_that_is_not_utf_8(session: Session, repository: Path) -> None:
    (repository / ".gitignore").write_bytes(b"caf\xe9.py\n")
    assert uri_path("file:///caf%E9.py") == uri_path("file:///caf\udce9.py") == os.fsdecode(b"/caf\xe9.py")
    assert reason(session, f"{repository.as_uri()}/caf%E9.py")
    assert reason(session, f"{repository.as_uri()}/caf%E8.py") is None


@pytest.mark.parametrize(
    "uri", ["", "x", ":", "file:", "file://[", "\ud800:\ud800", "a://[/x/.env", "%", "file:///%00"]
)
def test_any_uri_has_a_path(session: Session, uri: str) -> None:
    assert isinstance(uri_path(uri), str)
    assert reason(session, uri) is None or "secrets" in str(reason(session, uri)) or "%00" in uri


def test_a_verdict_follows_the_files_on_disk(session: Session, repository: Path, empty_home: Path) -> None:
    uri = (repository / "a.py").as_uri()
    put(repository, {"a.py": CODE, "b.py": CODE})
    assert reason(session, uri) is None
    for name, text in ((".gitignore", "a.py\n"), (".git/info/exclude", "a.py\n")):
        put(repository, {name: text})
        assert reason(session, uri)
        put(repository, {name: "b.py\n"})
        assert reason(session, uri) is None
    put(empty_home, {".gitconfig": "[core]\nexcludesFile = ~/list\n", "list": "a.py\n"})
    assert reason(session, uri)
    put(empty_home, {".gitconfig": ""})
    assert reason(session, uri) is None
    (repository / "a.py").unlink()
    (repository / "a.py").symlink_to("b.py")
    assert reason(session, uri)


def test_private_neighbours_are_left_out(session: Session, repository: Path) -> None:
    session.settings = LspSettings(disabled_paths=("/legal/",))
    session.folders = (repository,)
    put(repository, {".gitignore": "made.py\n", "fine.py": "", ".env": ""})
    (repository / "link.py").symlink_to(".env")
    for name in ("fine.py", "made.py", "link.py", "legal/x.py", "broken.py", ".env", "main.py"):
        session.documents.open(types.TextDocumentItem((repository / name).as_uri(), "python", 1, f"# {name}\n"))
    session.lose_step((repository / "broken.py").as_uri())
    main = session.documents.get((repository / "main.py").as_uri())
    assert main is not None
    assert [one.text for one in asyncio.run(session.neighbours(main))] == ["# fine.py\n"]
    put(repository, {".gitignore": "fine.py\n"})
    assert [one.text for one in asyncio.run(session.neighbours(main))] == ["# made.py\n"]


def test_settings_of_every_folder_exclude_files() -> None:
    class Server:
        client_capabilities = types.ClientCapabilities(workspace=types.WorkspaceClientCapabilities(configuration=True))
        scopes: list[str | None] = []

        async def workspace_configuration_async(self, params: types.ConfigurationParams) -> list[Any]:
            self.scopes = [one.scope_uri for one in params.items]
            return [{"delayMs": 1, "disabledPaths": ["a"]}, None, {"disabledPaths": ["b", "a"]}][: len(params.items)]

    server: Any = Server()
    found = asyncio.run(pulled_settings(server, [Path("/one"), Path("/two")]))
    assert found == {"delayMs": 1, "disabledPaths": ["a", "b", "a"]}
    assert server.scopes == [None, "file:///one", "file:///two"]
    assert asyncio.run(pulled_settings(server, [Path("/one")])) == {"delayMs": 1, "disabledPaths": ["a"]}


def rule(client: Client, uri: str) -> str | None:
    for _ in range(5):
        with suppress(LookupError):  # cancelled, because a watched file changed meanwhile
            client.inline(uri, 1, 11, invoked=True)
            break
    found: str | None = client.command("gesso.whyNothing")[0]["rule"]
    return found


def test_folders_and_ignore_files_that_come_later(bare: Client, tmp_path: Path) -> None:
    put(tmp_path, {f"{name}/private/k.py": CODE for name in ("one", "two")})
    watching = {"didChangeWatchedFiles": {"dynamicRegistration": True}}
    bare.initialize(
        {**MODERN, "workspace": watching}, {"model": "pocket", "disabledPaths": ["/private/"]}, tmp_path / "one"
    )
    first, second = ((tmp_path / name / "private" / "k.py").as_uri() for name in ("one", "two"))
    bare.wait_until_ready()
    for uri in (first, second):
        bare.open(uri, CODE)
    assert rule(bare, first) == "private file" and rule(bare, second) != "private file"
    folder = {"uri": (tmp_path / "two").as_uri(), "name": "two"}
    bare.notify("workspace/didChangeWorkspaceFolders", {"event": {"added": [folder], "removed": []}})
    assert rule(bare, second) == "private file"
    bare.notify("workspace/didChangeWorkspaceFolders", {"event": {"added": [], "removed": [folder]}})
    assert rule(bare, second) != "private file"
    subprocess.run(["git", "init", "-q", str(tmp_path / "two")], check=True)
    assert rule(bare, second) == "private file"  # the repository stands in for the folder
    put(tmp_path / "two", {"open.py": CODE})
    opened = (tmp_path / "two" / "open.py").as_uri()
    bare.open(opened, CODE)
    assert rule(bare, opened) != "private file"
    put(tmp_path / "two", {".gitignore": "open.py\n"})
    assert rule(bare, opened) == "private file"
    registered = [one for one in bare.received if one["method"] == "client/registerCapability"]
    assert ".gitignore" in str(registered[0]["params"])
    bare.notify("workspace/didChangeWatchedFiles", {"changes": [{"uri": f"{folder['uri']}/.gitignore", "type": 2}]})
    assert rule(bare, opened) == "private file"
    assert bare.close() == 0


def test_a_lone_surrogate_in_one_file_leaves_the_others_their_suggestions(shared: Client, uri: str) -> None:
    base = "import math\n\n\nclass Circle:\n    def area(self):\n        return math.pi * self.radius ** 2\n"
    text = base + "\n    def circumference(self):\n        return \n"
    other = uri.replace(".py", "_other.py")
    shared.open(other, 'x = "\ud83d"\n' + text)
    shared.open(uri, text)
    assert shared.inline(uri, 8, 15, invoked=True)
    assert shared.inline(other, 9, 15, invoked=True)
    shared.notify("textDocument/didClose", {"textDocument": {"uri": other}})
