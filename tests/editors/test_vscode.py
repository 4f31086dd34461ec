"""The extension in a real VS Code (code-server) in a headless Chromium, with the real server and the shipped model."""

from __future__ import annotations

import json
import re
import sys
import time
import tomllib
from collections.abc import Iterator

import psutil
import pytest

from infill.service.location import lock_holder
from lsp.server import create_server
from lsp.settings import schema
from tests.editors.services import default_location
from tests.editors.vscode import EXTENSION, ROOT, VSCode, build_extension, eventually, find_tools, vscode

STACK = """\
class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        return self

    def is_empty(self):
        return len(self.items) == 0
"""
ARGUMENTS = """\
import argparse


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", help="input file")

    args = parser.parse_args()
    print(args.input, args.output)
"""
READY_S, GHOST_S = 120.0, 30.0
SETTLED_S = 1.0  # what has not appeared by then after a key will not
TALKATIVE = {"gesso.minConfidence": 0, "gesso.eagerness": "eager", "gesso.delayMs": 0}
SETTINGS = {"gesso.server.command": [sys.executable, "-m", "lsp"]} | TALKATIVE
tools = find_tools()
needs_vscode = pytest.mark.skipif(isinstance(tools, str), reason=tools if isinstance(tools, str) else "")


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSCode]:
    """A window in which the model is ready and nothing that it says is held back as too uncertain."""
    assert not isinstance(tools, str)
    build_extension(tools)
    with vscode(tools, tmp_path_factory.mktemp("vscode"), SETTINGS) as opened:
        ready(opened)
        opened.open("first.py", STACK, line=9)
        eventually(lambda: asked_by_hand(opened), "VS Code asks; a new editor does so after some seconds only", READY_S)
        opened.close_editors()
        yield opened


@pytest.fixture
def code(window: VSCode) -> Iterator[VSCode]:
    """The window as it was at first; afterwards with no list and no editor open in it."""
    if window.settings != SETTINGS:
        window.configure(SETTINGS)
        ready_again(window)
    yield window
    window.close_editors()


@pytest.fixture
def configured(window: VSCode) -> Iterator[VSCode]:
    """The window for a test that begins with settings of its own, and leaves it so."""
    yield window
    window.close_editors()


def asked_by_hand(code: VSCode) -> bool:
    code.press("Alt+\\")
    time.sleep(SETTLED_S)
    return " ms" in code.status()


def ghost(code: VSCode) -> str:
    """The ghost text as soon as there is some; otherwise fails with the reasons that Gesso gives for nothing."""
    end = time.monotonic() + GHOST_S
    while not (text := code.ghost()):
        if time.monotonic() > end:
            pytest.fail("no ghost text; " + "; ".join(reasons(code)))
        time.sleep(0.02)
    return text


def no_ghost(code: VSCode) -> None:
    eventually(lambda: not code.ghost(), "no ghost text")


def reasons(code: VSCode) -> list[str]:
    """What *Why Nothing?* lists, newest first."""
    code.command("Gesso: Why Nothing?")
    return eventually(lambda: code.rows("Gesso: Why Nothing?"), "the list of reasons")


def newest_reason(code: VSCode, wanted: str, typed: str) -> str:
    """The newest of the reasons once `wanted` is part of it. `typed`, the last key, is typed anew until it is: VS Code
    forgets what it was about to ask when a list opens over the editor."""
    for patience in range(1, 6):
        time.sleep(patience * SETTLED_S)
        if wanted in (newest := reasons(code)[0]):
            return newest
        code.press("Escape", "Backspace")
        code.type(typed)
    pytest.fail(f"the newest reason does not say: {wanted}; it says: {newest}")


def another_server(code: VSCode, before: int) -> psutil.Process:
    eventually(lambda: [one.pid for one in code.servers()] not in ([], [before]), "another server")
    (process,) = code.servers()
    return process


def another_service(before: int | None) -> psutil.Process:
    eventually(lambda: lock_holder(default_location()) not in (None, before), "another service")
    return psutil.Process(lock_holder(default_location()))


def ready_again(code: VSCode) -> None:
    eventually(lambda: "Ready" not in code.state(), "that it was interrupted is seen")
    ready(code)


def ready(code: VSCode) -> None:
    eventually(lambda: "Ready" in code.state(), "the model is ready", READY_S)


@pytest.mark.slow
@needs_vscode
def test_ghost_text_is_narrowed_by_typing_and_accepted_with_tab(code: VSCode) -> None:
    code.open("stack.py", STACK, line=9)
    code.type(".it")
    suggested = ghost(code)
    code.type(suggested[0])
    eventually(lambda: code.ghost() == suggested[1:], "the ghost text is what is left of it")
    code.press("Tab")
    no_ghost(code)
    code.saves("stack.py", STACK.replace("return self\n", f"return self.it{suggested}\n"))


@pytest.mark.slow
@needs_vscode
def test_word_by_word_and_back_by_undo(code: VSCode) -> None:
    code.open("arguments.py", ARGUMENTS, line=7)
    code.type("    parser.add_argument('--output'")
    suggested = ghost(code)
    code.press("Control+ArrowRight")
    eventually(lambda: 0 < len(code.ghost()) < len(suggested), "less ghost text")
    assert suggested.endswith(code.ghost())
    code.press("Control+z")
    eventually(lambda: code.ghost() == suggested, "the ghost text as it was before")


@pytest.mark.slow
@needs_vscode
def test_line_by_line(code: VSCode) -> None:
    code.open("lines.py", STACK, line=9)
    code.type(".it")
    first, *others = ghost(code).split("\n")
    code.press("Control+Alt+ArrowRight")
    if others:
        eventually(lambda: code.ghost().strip().startswith(others[0].strip()), "the lines that are left")
    else:
        no_ghost(code)
    code.press("Escape")
    accepted = f"return self.it{first}\n" + ("\n" if others else "")
    code.saves("lines.py", STACK.replace("return self\n", accepted))


@pytest.mark.slow
@needs_vscode
def test_alternatives_are_cycled_after_asking_by_hand(code: VSCode) -> None:
    code.open("cycled.py", STACK, line=9)
    code.press("Alt+\\")
    first = ghost(code)
    code.press("Alt+]")
    second = eventually(lambda: (now := code.ghost()) != first and now, "another suggestion")
    code.press("Alt+[")
    eventually(lambda: code.ghost() == first, "the first one again")
    code.press("Alt+]")
    eventually(lambda: code.ghost() == second, "the second one again")
    code.press("Tab")
    code.saves("cycled.py", STACK.replace("return self\n", f"return self{second}\n"))


@pytest.mark.slow
@needs_vscode
def test_what_escape_dismissed_does_not_come_back_by_itself(code: VSCode) -> None:
    code.open("dismissed.py", STACK, line=9)
    code.type(".it")
    dismissed = ghost(code)
    code.press("Escape")
    no_ghost(code)
    code.type(dismissed[0])
    time.sleep(SETTLED_S)
    code.press("Backspace")
    time.sleep(SETTLED_S)
    assert code.ghost() != dismissed
    newest_reason(code, "You rejected the same suggestion here", "t")


@pytest.mark.slow
@needs_vscode
def test_why_nothing_gives_the_reason_and_the_times(code: VSCode) -> None:
    code.open("word.py", STACK, line=6)
    code.press(*["ArrowLeft"] * 6)
    code.type("x")
    newest = newest_reason(code, "middle of a line", "x")
    assert "line 6" in newest and re.search("[0-9]+ ms in all", newest)
    older = reasons(code)[1:]
    assert any("Shown: " in one and " · denoise " in one for one in older)
    code.press("Enter")
    page = eventually(lambda: [one for one in code.lines() if "| 6 | " in one], "the whole as a document")
    assert "".join(page) and "items.append" not in "".join(code.lines())


@pytest.mark.slow
@needs_vscode
def test_status_and_switches(code: VSCode) -> None:
    code.open("switched.py", STACK, line=9)
    code.type(".it")
    ghost(code)
    eventually(lambda: code.status().endswith(" ms"), "the time it took")
    assert "Ready. Last suggestion" in code.state()
    code.command("Gesso: Switch Suggestions On or Off for This Language")
    eventually(lambda: "switched off for python" in code.state(), "off for Python")
    code.press("Escape")
    code.type("e")
    newest_reason(code, "switched off for python", "e")
    assert not code.ghost()
    code.press("Escape")
    code.command("Gesso: Switch Suggestions On or Off for This Language")
    eventually(lambda: "Ready" in code.state(), "on for Python")
    code.command("Gesso: Switch Suggestions On or Off")
    eventually(lambda: "switched off." in code.state(), "off")
    code.command("Gesso: Switch Suggestions On or Off")
    ready(code)


@pytest.mark.slow
@needs_vscode
def test_the_server_comes_back_after_it_was_killed_and_when_told_to(code: VSCode) -> None:
    code.open("killed.py", STACK, line=9)
    (server,) = code.servers()
    server.kill()
    ready_again(code)
    server = another_server(code, server.pid)
    code.type(".it")
    ghost(code)
    code.command("Gesso: Restart the Server")
    ready_again(code)
    another_server(code, server.pid)
    code.press("Backspace")
    code.type("t")
    ghost(code)


@pytest.mark.slow
@needs_vscode
def test_while_the_model_loads_it_is_said_and_typing_goes_on(code: VSCode) -> None:
    code.open("loading.py", STACK, line=9)
    service = another_service(None)
    service.kill()
    code.type(".i")  # its request starts the service again
    service = another_service(service.pid)
    service.suspend()  # a model that takes its time
    try:
        eventually(lambda: "The model is loading." in code.state(), "loading is said")
        code.type("t")
        newest_reason(code, "still loading", "t")
        code.press("Escape")
        assert not code.ghost()
        code.saves("loading.py", STACK.replace("return self\n", "return self.it\n"))
    finally:
        service.resume()
    ready(code)
    code.press("Backspace")
    code.type("t")
    ghost(code)


@pytest.mark.slow
@needs_vscode
def test_a_file_of_20000_lines(code: VSCode) -> None:
    filler = "".join(f"def number_{number}():\n    return {number}\n\n\n" for number in range(5000))
    text = filler + STACK
    code.open("long.py", text, line=20_009)
    code.type(".it")
    suggested = ghost(code)
    code.press("Tab")
    no_ghost(code)
    code.saves("long.py", filler + STACK.replace("return self\n", f"return self.it{suggested}\n"))


@pytest.mark.slow
@needs_vscode
def test_a_missing_model_is_said_with_its_name(configured: VSCode) -> None:
    configured.configure(SETTINGS | {"gesso.model": "/there/is/no/model"})
    eventually(lambda: "/there/is/no/model" in configured.state(), "the status names the model")
    assert "/there/is/no/model" in configured.messages()
    assert not configured.status().endswith(" ms")


@pytest.mark.slow
@needs_vscode
def test_a_finding_is_marked_and_its_quick_fix_applied(configured: VSCode) -> None:
    """The findings are scripted: `wrnog` is wrong."""
    wrong = "def first(a):\n    b = a\n    return wrnog\n"
    script = str(ROOT / "tests" / "lsp" / "scripted_server.py")
    configured.configure({"gesso.server.command": [sys.executable, script], "gesso.lintSeverity": "warning"})
    ready_again(configured)
    configured.open("wrong.py", wrong, line=3)
    eventually(lambda: configured.browser("count", ".squiggly-warning"), "the mark")
    configured.press("Control+.")
    fix = '.action-widget .monaco-list-row:has-text("Change to `wrong`")'
    eventually(lambda: configured.browser("count", fix), "the quick fix")
    configured.browser("click", fix)
    eventually(lambda: not configured.browser("count", ".squiggly-warning"), "the mark has gone")
    configured.saves("wrong.py", wrong.replace("wrnog", "wrong"))


@pytest.mark.slow
@needs_vscode
def test_a_server_that_cannot_be_started_is_said(configured: VSCode) -> None:
    configured.configure({"gesso.server.command": ["/there/is/no/server"]})
    eventually(lambda: "could not be started" in configured.state(), "the status says it")
    eventually(lambda: "/there/is/no/server" in configured.messages(), "a message names it")


@pytest.mark.slow
@needs_vscode
def test_where_there_is_no_server_it_is_said_and_offered(configured: VSCode) -> None:
    configured.configure({})
    eventually(lambda: "not installed" in configured.messages(), "the offer")
    assert "The server is not installed." in configured.state()
    eventually(lambda: not configured.servers(), "the old server has ended")
    configured.command("Gesso: Why Nothing?")
    answer = "Gesso cannot answer now. The server is not installed."
    eventually(lambda: answer in configured.messages(), "the reason")


def test_package_json_has_the_servers_settings() -> None:
    package = json.loads((EXTENSION / "package.json").read_text())
    contributed = package["contributes"]["configuration"]["properties"]
    for name, wanted in schema().items():
        assert {key: contributed[name].get(key) for key in wanted} == wanted
    others = {name for name in contributed if not name.startswith(("gesso.server.", "gesso.trace."))}
    assert others == set(schema())


def test_the_servers_commands_have_other_names_than_the_extensions() -> None:
    """The language client gives VS Code a command for each of the server's, and none may be there twice."""
    package = json.loads((EXTENSION / "package.json").read_text())
    extensions = {contributed["command"] for contributed in package["contributes"]["commands"]}
    assert extensions.isdisjoint(create_server().protocol.fm.commands)


def test_the_extension_installs_the_torch_that_gesso_needs() -> None:
    needed = tomllib.loads((EXTENSION.parents[1] / "pyproject.toml").read_text())["project"]["dependencies"]
    (torch,) = [one for one in needed if one.startswith("torch")]
    assert f"const TORCH = '{torch}';" in (EXTENSION / "src" / "install.ts").read_text()
