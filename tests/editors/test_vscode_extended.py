"""A suggestion that grows on the screen of a real VS Code, with the real server and a scripted model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.editors.vscode import eventually, find_tools, with_server
from tests.gate import Gate

tools = find_tools()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(isinstance(tools, str), reason=tools if isinstance(tools, str) else ""),
]


def test_the_beginning_is_shown_first_and_then_all_of_it(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with with_server(tmp_path / "vscode", "growing_server.py", gate) as code:
        code.open("one.py", "first = second = 1\n\n", 2)
        code.type("total = ")
        assert eventually(code.ghost, "the beginning") == "first"
        gate.open()
        eventually(lambda: code.ghost() == "first + second", "all of it")
        code.press("Tab")
        code.saves("one.py", "first = second = 1\ntotal = first + second\n")
