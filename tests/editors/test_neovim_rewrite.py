"""`:Gesso edit` in a real Neovim, with a scripted server whose new text is the instruction."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pynvim", reason="pynvim is not installed; it comes with the extra `dev`")

from tests.editors.neovim import ROOT, Neovim, needs_neovim, server_options  # noqa: E402

pytestmark = [pytest.mark.slow, needs_neovim]

SERVER = [sys.executable, str(ROOT / "tests" / "lsp" / "scripted_server.py")]
CODE = "a = 1\nb = 2\nc = 3\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neovim]:
    home = tmp_path_factory.mktemp("home")
    nvim = Neovim(home, {**server_options(home), "cmd": SERVER})
    yield nvim
    nvim.close()


@pytest.fixture
def nvim(running: Neovim, tmp_path: Path) -> Iterator[Neovim]:
    running.open(tmp_path / "a.py", CODE)
    running.lua("Notified = nil")
    running.wait_ready()
    yield running
    running.nvim.command("silent %bwipeout!")


def test_the_selected_lines_are_rewritten_and_restored_in_one_step(nvim: Neovim) -> None:
    nvim.keys("gg", "Vj", ":Gesso edit d = 4<CR>")
    nvim.wait(lambda: nvim.lines()[0].startswith("d = 4"), "rewrite")
    assert nvim.lines() == ["d = 4c = 3"], "the scripted text has no line end"
    nvim.keys("u")
    assert nvim.lines() == CODE.splitlines()


def test_without_a_range_it_is_the_line_of_the_cursor(nvim: Neovim) -> None:
    nvim.keys("2G", ":Gesso edit d = 4<CR>")
    nvim.wait(lambda: nvim.lines() == ["a = 1", "d = 4c = 3"], "rewrite")


def test_a_refused_answer_changes_nothing_and_has_a_reason(nvim: Neovim) -> None:
    nvim.keys("gg", ":Gesso edit refuse<CR>")
    nvim.wait(lambda: "the answer is empty" in (nvim.lua("return Notified") or ""), "reason")
    assert nvim.lines() == CODE.splitlines()
