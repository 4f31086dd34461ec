"""The extension in a real VS Code (code-server) in a headless Chromium, with the real server and the shipped model."""

from __future__ import annotations

import json
import re
import sys
import time
import tomllib
from collections.abc import Iterator
from functools import partial

import psutil
import pytest

from lsp.server import create_server
from lsp.settings import schema
from tests.editors.services import default_location
from tests.editors.vscode import EXTENSION, ROOT, VSCode, build_extension, eventually, find_tools, vscode
from tests.infill.local_hub import local_hub
from tests.lsp.small_coder import CONTENT, MIB
from tests.services import no_service_starts
from tests.waiting import PATIENCE_S

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
SETTLED_S = 1.0  # nothing more appears this long after a key
EAGER = {"gesso.minConfidence": 0, "gesso.eagerness": "eager", "gesso.delayMs": 0}
SETTINGS = {"gesso.server.command": [sys.executable, "-m", "lsp"]} | EAGER
tools = find_tools()
needs_vscode = pytest.mark.skipif(isinstance(tools, str), reason=tools if isinstance(tools, str) else "")


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSCode]:
    """A window with the model ready and no confidence threshold."""
    assert not isinstance(tools, str)
    build_extension(tools)
    with vscode(tools, tmp_path_factory.mktemp("vscode"), SETTINGS) as opened:
        ready(opened)
        opened.open("first.py", STACK, line=9)
        eventually(lambda: requests_by_hand(opened), "a first request, which takes a new editor some seconds")
        opened.close_editors()
        yield opened


@pytest.fixture
def code(window: VSCode) -> Iterator[VSCode]:
    """The window with its first settings; closes all editors afterwards."""
    if window.settings != SETTINGS:
        window.configure(SETTINGS)
        ready_again(window)
    yield window
    window.close_editors()


@pytest.fixture
def configured(window: VSCode) -> Iterator[VSCode]:
    """The window for a test that replaces the settings; closes all editors afterwards."""
    yield window
    window.close_editors()


def requests_by_hand(code: VSCode) -> bool:
    code.press("Alt+\\")
    time.sleep(SETTLED_S)
    return " ms" in code.status()


def ghost(code: VSCode) -> str:
    """Waits for ghost text; fails with Gesso's reasons if there is none."""
    end = time.monotonic() + PATIENCE_S
    while not (text := code.ghost()):
        if time.monotonic() > end:
            pytest.fail("no ghost text; " + "; ".join(reasons(code)))
        time.sleep(0.02)
    return text


def no_ghost(code: VSCode) -> None:
    eventually(lambda: not code.ghost(), "no ghost text")


def reasons(code: VSCode) -> list[str]:
    """The entries of *Why Nothing?*, newest first."""
    code.command("Gesso: Why Nothing?")
    return eventually(lambda: code.rows("Gesso: Why Nothing?"), "the list of reasons")


def newest_reason(code: VSCode, expected: str, typed: str) -> str:
    """Waits until the newest reason contains `expected`. typed: the last key, which is typed again before each retry,
    because VS Code drops a pending request when a list opens."""
    end, pause_s = time.monotonic() + PATIENCE_S, 0.0
    while time.monotonic() < end:
        pause_s += SETTLED_S
        time.sleep(pause_s)
        if expected in (newest := reasons(code)[0]):
            return newest
        code.press("Escape", "Backspace")
        code.type(typed)
    pytest.fail(f"the newest reason does not contain {expected!r}; it is {newest!r}")


def another_server(code: VSCode, before: int) -> psutil.Process:
    eventually(lambda: [one.pid for one in code.servers()] not in ([], [before]), "another server")
    (process,) = code.servers()
    return process


def ready_again(code: VSCode) -> None:
    eventually(lambda: "Ready" not in code.state(), "the interruption")
    ready(code)


def ready(code: VSCode) -> None:
    eventually(lambda: "Ready" in code.state(), "a ready model")


@pytest.mark.slow
@needs_vscode
def test_ghost_text_shrinks_with_typing_and_is_accepted_with_tab(code: VSCode) -> None:
    code.open("stack.py", STACK, line=9)
    code.type(".it")
    suggested = ghost(code)
    code.type(suggested[0])
    eventually(lambda: code.ghost() == suggested[1:], "the rest of the ghost text")
    code.press("Tab")
    no_ghost(code)
    code.saves("stack.py", STACK.replace("return self\n", f"return self.it{suggested}\n"))


@pytest.mark.slow
@needs_vscode
def test_accept_word_and_undo(code: VSCode) -> None:
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
def test_accept_line(code: VSCode) -> None:
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
def test_alternatives_cycle_after_a_request_by_hand(code: VSCode) -> None:
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
def test_a_dismissed_suggestion_does_not_come_back(code: VSCode) -> None:
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
    newest_reason(code, "You rejected this suggestion here", "t")


@pytest.mark.slow
@needs_vscode
def test_why_nothing_gives_the_reason_and_the_times(code: VSCode) -> None:
    code.open("word.py", STACK, line=6)
    code.press(*["ArrowLeft"] * 6)
    code.type("x")
    newest = newest_reason(code, "middle of a line", "x")
    assert "line 6" in newest and re.search("[0-9]+ ms in total", newest)
    older = reasons(code)[1:]
    assert any("Shown: " in one and " · denoise " in one for one in older)
    code.press("Enter")
    page = eventually(lambda: [one for one in code.lines() if "| 6 | " in one], "the document with all requests")
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
def test_the_server_restarts_after_a_crash_and_by_command(code: VSCode) -> None:
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
def test_typing_works_while_the_model_is_loading(code: VSCode) -> None:
    code.open("loading.py", STACK, line=9)
    with no_service_starts(default_location()):
        code.type(".i")  # its request asks for another service
        eventually(lambda: "The model is loading." in code.state(), "the status of a loading model")
        code.type("t")
        newest_reason(code, "still loading", "t")
        code.press("Escape")
        assert not code.ghost()
        code.saves("loading.py", STACK.replace("return self\n", "return self.it\n"))
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
def test_a_missing_model_is_reported_by_name(configured: VSCode) -> None:
    configured.configure(SETTINGS | {"gesso.model": "/there/is/no/model"})
    eventually(lambda: "/there/is/no/model" in configured.state(), "the status names the model")
    eventually(lambda: "/there/is/no/model" in configured.messages(), "a notification names the model")


@pytest.mark.slow
@needs_vscode
def test_a_finding_is_marked_and_its_quick_fix_applied(configured: VSCode) -> None:
    """The scripted server reports each `wrnog`."""
    wrong = "def first(a):\n    b = a\n    return wrnog\n"
    script = str(ROOT / "tests" / "lsp" / "scripted_server.py")
    settings = {"gesso.lintSeverity": "warning", "gesso.lintInclude": ["wrong-name"]}
    configured.configure({"gesso.server.command": [sys.executable, script], **settings})
    ready_again(configured)
    configured.open("wrong.py", wrong, line=3)
    eventually(lambda: configured.browser("count", ".squiggly-warning"), "the mark")
    configured.press("Control+.")
    fix = '.action-widget .monaco-list-row:has-text("Change to `wrong`")'
    eventually(lambda: configured.browser("count", fix), "the quick fix")
    configured.browser("click", fix)
    eventually(lambda: not configured.browser("count", ".squiggly-warning"), "no mark")
    configured.saves("wrong.py", wrong.replace("wrnog", "wrong"))


@pytest.mark.slow
@needs_vscode
def test_the_code_model_is_offered_and_downloaded(configured: VSCode) -> None:
    """The scripted server has a small file as the code model."""
    script = str(ROOT / "tests" / "lsp" / "scripted_server.py")
    with local_hub(CONTENT, MIB) as hub:
        command = ["env", f"HF_ENDPOINT={hub.address}", sys.executable, script]
        configured.configure({"gesso.server.command": command, "gesso.model": "auto"})
        eventually(lambda: "nothing you type leaves it" in configured.messages(), "the offer")
        assert not hub.requests
        configured.browser("click", '.notification-list-item .monaco-button:has-text("Download")')
        texts = partial(configured.browser, "texts", ".statusbar-item")
        eventually(lambda: "1 of 8 MiB" in " ".join(texts()), "the progress")
        configured.command("Gesso: Download the Code Model")
        eventually(lambda: "is being downloaded" in configured.messages(), "the same by command")
        hub.complete.set()
        eventually(lambda: "suggestions now come from coder" in configured.messages(), "the new model")


@pytest.mark.slow
@needs_vscode
def test_a_server_that_cannot_be_started_is_reported(configured: VSCode) -> None:
    configured.configure({"gesso.server.command": ["/there/is/no/server"]})
    eventually(lambda: "could not be started" in configured.state(), "the status")
    eventually(lambda: "/there/is/no/server" in configured.messages(), "a message with its path")


@pytest.mark.slow
@needs_vscode
def test_a_missing_server_is_reported_and_its_installation_offered(configured: VSCode) -> None:
    configured.configure({})
    eventually(lambda: "not installed" in configured.messages(), "the offer")
    assert "The server is not installed." in configured.state()
    eventually(lambda: not configured.servers(), "the end of the old server")
    configured.command("Gesso: Why Nothing?")
    answer = "Gesso cannot do this now. The server is not installed."
    eventually(lambda: answer in configured.messages(), "the reason")


def test_package_json_has_the_servers_settings() -> None:
    package = json.loads((EXTENSION / "package.json").read_text())
    contributed = package["contributes"]["configuration"]["properties"]
    for name, expected in schema().items():
        assert {key: contributed[name].get(key) for key in expected} == expected
    of_the_server = {name for name in contributed if not name.startswith(("gesso.server.", "gesso.trace."))}
    assert of_the_server == set(schema())


def test_server_and_extension_share_no_command_name() -> None:
    """The language client registers the server's commands in VS Code, where a name must be unique."""
    package = json.loads((EXTENSION / "package.json").read_text())
    extensions = {contributed["command"] for contributed in package["contributes"]["commands"]}
    assert extensions.isdisjoint(create_server().protocol.fm.commands)


def test_the_extension_installs_the_torch_that_gesso_needs() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (torch,) = [one for one in dependencies if one.startswith("torch")]
    assert f"const TORCH = '{torch}';" in (EXTENSION / "src" / "install.ts").read_text()
