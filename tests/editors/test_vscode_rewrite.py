"""`Gesso: Rewrite the Selection…` in a real VS Code, with a scripted server whose new text is the instruction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.editors.vscode import VSCode, eventually, find_tools, with_server
from tests.gate import Gate

tools = find_tools()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(isinstance(tools, str), reason=tools if isinstance(tools, str) else ""),
]
CODE = "a = 1\nb = 2\nc = 3\n"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """Of the instruction `slow`."""
    return Gate(tmp_path_factory.mktemp("gate") / "gate")


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> Iterator[VSCode]:
    root = tmp_path_factory.mktemp("vscode")
    with with_server(root, "scripted_server.py", gate, **{"editor.inlineSuggest.enabled": False}) as opened:
        yield opened


@pytest.fixture
def code(window: VSCode) -> Iterator[VSCode]:
    yield window
    window.close_editors()


def rewrite(code: VSCode, name: str, instruction: str) -> None:
    code.open(name, CODE, 2)
    code.command("Gesso: Rewrite the Selection…")
    eventually(lambda: code.browser("count", ".quick-input-widget input:focus"), "the prompt for an instruction")
    code.type(instruction, 5)
    code.press("Enter")


def test_tab_accepts_it_in_one_undo_step(code: VSCode) -> None:
    rewrite(code, "one.py", "b = 4")
    eventually(lambda: "b = 4" in code.after(), "the new line")
    assert "b = 2" in code.lines(), "the text itself has not changed"
    eventually(lambda: "Accept (Tab)" in code.messages(), "the question")
    code.press("Tab")
    eventually(lambda: "b = 4" in code.lines(), "the new text")
    code.saves("one.py", CODE.replace("b = 2", "b = 4"))
    code.press("Control+z")
    eventually(lambda: "b = 2" in code.lines(), "the old text")
    code.saves("one.py", CODE)


def test_it_is_shown_while_it_is_written_and_escape_discards_it(code: VSCode, gate: Gate) -> None:
    rewrite(code, "two.py", "slow")
    eventually(lambda: "slow" in code.after(), "the first line")
    assert "Accept" not in code.messages()
    gate.open()
    eventually(lambda: "Accept (Tab)" in code.messages(), "the question")
    code.press("Escape")
    eventually(lambda: "slow" not in code.after(), "no new line")
    code.saves("two.py", CODE)


def test_a_change_of_the_text_discards_it(code: VSCode) -> None:
    rewrite(code, "three.py", "b = 5")
    eventually(lambda: "b = 5" in code.after(), "the new line")
    code.press("End")
    code.type("0")
    eventually(lambda: "b = 5" not in code.after(), "no new line")
    code.saves("three.py", CODE.replace("b = 2", "b = 20"))
