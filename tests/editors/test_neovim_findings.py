"""Lint findings and quick fixes in a real Neovim, with a scripted server that reports each `wrnog`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynvim", reason="pynvim is not installed; it comes with the extra `dev`")

from tests.editors.neovim import NVIM, OLD_NVIM, ROOT, Neovim, needs_neovim, server_options, version  # noqa: E402

pytestmark = pytest.mark.slow

SERVER = [sys.executable, str(ROOT / "tests" / "lsp" / "scripted_server.py")]
CODE = "def first(a):\n    b = a\n    return wrnog\n"
EDITORS = [
    pytest.param(NVIM, marks=needs_neovim, id="new"),
    pytest.param(OLD_NVIM, marks=pytest.mark.skipif(version(OLD_NVIM) == (0, 0), reason="no older Neovim"), id="old"),
]


@pytest.fixture(scope="module", params=EDITORS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neovim]:
    home = tmp_path_factory.mktemp("home")
    nvim = Neovim(home, {**server_options(home, lintInclude=["wrong-name"]), "cmd": SERVER}, request.param)
    yield nvim
    nvim.close()


@pytest.fixture
def nvim(running: Neovim, tmp_path: Path) -> Iterator[Neovim]:
    """An editor with a file that has one finding, in its last line."""
    running.open(tmp_path / "wrong.py", CODE)
    running.wait(lambda: codes_and_lines(running) == ["wrong-name 2"], "mark")
    yield running
    running.nvim.command("silent %bwipeout!")


def diagnostics(nvim: Neovim) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = nvim.lua(
        "return vim.tbl_map(function(one) return { code = one.code, source = one.source, message = one.message, "
        "lnum = one.lnum } end, vim.diagnostic.get(0))"
    )
    return found


def codes_and_lines(nvim: Neovim) -> list[str]:
    """Code and 0-based line of each finding in the file."""
    return [f"{one['code']} {one['lnum']}" for one in diagnostics(nvim)]


def apply_action(nvim: Neovim, title: str) -> None:
    """Applies the code action at the cursor whose title starts with `title`."""
    nvim.lua(
        "local title = ... vim.lsp.buf.code_action({ apply = true, "
        "filter = function(one) return vim.startswith(one.title, title) end })",
        title,
    )


def test_a_finding_is_marked_and_its_quick_fix_applied(nvim: Neovim) -> None:
    (found,) = diagnostics(nvim)
    assert found["source"] == "gesso" and found["message"]
    apply_action(nvim, "Change to")
    nvim.wait(lambda: nvim.lines()[2] == "    return wrong", "fix")
    nvim.wait(lambda: not codes_and_lines(nvim), "end of the mark")


def test_a_mark_moves_with_its_line_and_disappears_with_its_text(nvim: Neovim) -> None:
    nvim.keys("gg", "O", "# above", "<Esc>")
    nvim.wait(lambda: codes_and_lines(nvim) == ["wrong-name 3"], "moved mark")
    nvim.keys("G$", "ciw", "right", "<Esc>")
    nvim.wait(lambda: not codes_and_lines(nvim), "end of the mark")


def test_a_dismissed_finding_stays_away(nvim: Neovim) -> None:
    apply_action(nvim, "Dismiss")
    nvim.wait(lambda: not codes_and_lines(nvim), "end of the mark")
    nvim.keys("gg", "O", "wrnog = 1", "<Esc>")
    nvim.wait(lambda: codes_and_lines(nvim) == ["wrong-name 0"], "mark of another one")
