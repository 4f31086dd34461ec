"""A suggestion that grows on the screen of a real VS Code, with the real server and a scripted model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.editors.vscode import ROOT, build_extension, eventually, find_tools, vscode

tools = find_tools()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(isinstance(tools, str), reason=tools if isinstance(tools, str) else ""),
]
SERVER = [sys.executable, str(ROOT / "tests" / "lsp" / "growing_server.py")]
READY_S = 120.0


def test_the_beginning_is_shown_first_and_then_all_of_it(tmp_path: Path) -> None:
    assert not isinstance(tools, str)
    build_extension(tools)
    with vscode(tools, tmp_path, {"gesso.server.command": SERVER, "gesso.languages": {"*": True}}) as code:
        eventually(lambda: "Ready" in code.state(), "the server is ready", READY_S)
        code.open("one.py", "first = second = 1\n\n", 2)
        code.type("total = ")
        assert eventually(code.ghost, "the beginning") == "first"
        eventually(lambda: code.ghost() == "first + second", "all of it")
        code.press("Tab")
        code.saves("one.py", "first = second = 1\ntotal = first + second\n")
