"""The extension in a real VS Code (code-server) in a headless Chromium, with the real server and the shipped model."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import pytest

from lsp.settings import schema
from tests.editors.vscode import EXTENSION, VSCode, build_extension, eventually, find_tools, vscode

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
READY_S, GHOST_S = 240.0, 60.0
SETTLED_S = 1.0  # what has not appeared by then after a key will not
TALKATIVE = {"gesso.minConfidence": 0, "gesso.eagerness": "eager", "gesso.delayMs": 0}
COMMAND = {"gesso.server.command": [sys.executable, "-m", "lsp"]}
tools = find_tools()
needs_vscode = pytest.mark.skipif(isinstance(tools, str), reason=tools if isinstance(tools, str) else "")


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSCode]:
    """A window in which the model is ready and nothing that it says is held back as too uncertain."""
    assert not isinstance(tools, str)
    build_extension(tools)
    with vscode(tools, tmp_path_factory.mktemp("vscode"), COMMAND | TALKATIVE) as opened:
        eventually(lambda: "Ready" in opened.state(), "the model is ready", READY_S)
        opened.open("first.py", STACK, line=9)
        eventually(lambda: asked_by_hand(opened), "VS Code asks; a new editor does so after some seconds only", READY_S)
        yield opened


@pytest.fixture
def code(window: VSCode) -> Iterator[VSCode]:
    """The window, and afterwards no list and no editor open in it."""
    yield window
    window.press("Escape", "Escape")
    window.command("File: Revert File")
    window.command("View: Close All Editors")


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


def another_server(code: VSCode, before: int) -> None:
    eventually(lambda: [one.pid for one in code.server_processes()] not in ([], [before]), "another server")
    eventually(lambda: "Ready" in code.state(), "the model is ready again", READY_S)


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
    left = eventually(lambda: (now := code.ghost()) != suggested and now, "less ghost text")
    assert suggested.endswith(left)
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
    assert any("You rejected the same suggestion here" in reason for reason in reasons(code))


@pytest.mark.slow
@needs_vscode
def test_why_nothing_gives_the_reason_and_the_times(code: VSCode) -> None:
    code.open("word.py", STACK, line=6)
    code.press(*["ArrowLeft"] * 6)
    code.type("x")
    time.sleep(SETTLED_S)
    newest, *older = reasons(code)
    assert "line 6" in newest and "middle of a line" in newest and "0 ms in all" in newest
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
    time.sleep(SETTLED_S)
    assert not code.ghost()
    assert "switched off for python" in reasons(code)[0]
    code.press("Escape")
    code.command("Gesso: Switch Suggestions On or Off for This Language")
    eventually(lambda: "Ready" in code.state(), "on for Python")
    code.command("Gesso: Switch Suggestions On or Off")
    eventually(lambda: "switched off." in code.state(), "off")
    code.command("Gesso: Switch Suggestions On or Off")
    eventually(lambda: "Ready" in code.state(), "on", READY_S)


@pytest.mark.slow
@needs_vscode
def test_the_server_comes_back_after_it_was_killed_and_when_told_to(code: VSCode) -> None:
    code.open("killed.py", STACK, line=9)
    (server,) = code.server_processes()
    server.kill()
    another_server(code, server.pid)
    code.type(".it")
    ghost(code)
    (server,) = code.server_processes()
    code.command("Gesso: Restart the Server")
    another_server(code, server.pid)
    code.press("Backspace")
    code.type("t")
    ghost(code)


@pytest.mark.slow
@needs_vscode
def test_where_there_is_no_server_it_is_said_once_and_offered(window: VSCode, tmp_path_factory) -> None:
    assert not isinstance(tools, str)
    with vscode(tools, tmp_path_factory.mktemp("bare"), {}) as bare:
        eventually(lambda: "not installed" in bare.messages(), "the offer", READY_S)
        assert "The server is not installed." in bare.state()
        assert not bare.server_processes()
        bare.command("Gesso: Why Nothing?")
        eventually(lambda: "Gesso cannot answer now. The server is not installed." in bare.messages(), "the reason")


def test_package_json_has_the_servers_settings() -> None:
    package = json.loads((EXTENSION / "package.json").read_text())
    contributed = package["contributes"]["configuration"]["properties"]
    for name, wanted in schema().items():
        assert {key: contributed[name].get(key) for key in wanted} == wanted
    others = {name for name in contributed if not name.startswith(("gesso.server.", "gesso.trace."))}
    assert others == set(schema())
