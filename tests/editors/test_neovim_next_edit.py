"""Next edits in a real Neovim with the real server; the model is not needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynvim", reason="pynvim is not installed; it comes with the extra `dev`")

from tests.editors.neovim import NVIM, ROOT, Neovim, server_options, version  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.skipif(version(NVIM) < (0, 12), reason="no Neovim 0.12")]

SERVER = [sys.executable, str(ROOT / "tests" / "lsp" / "scripted_server.py")]
CODE = "def area(size):\n    return size * size\n\n\nprint('é', area(1))\nprint(area(2))\n"
MARKS = """
local space, found = vim.api.nvim_create_namespace("gesso.next_edit"), {}
for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { details = true })) do
  local details = mark[4]
  if details.end_col then
    found[#found + 1] = { "old", mark[2], mark[3], details.end_col }
  elseif details.virt_text then
    found[#found + 1] = { details.virt_text_pos, mark[2], mark[3], details.virt_text[1][1] }
  end
end
return found
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neovim]:
    home = tmp_path_factory.mktemp("home")
    nvim = Neovim(home, {**server_options(home), "cmd": SERVER})
    yield nvim
    nvim.close()


@pytest.fixture
def nvim(running: Neovim, tmp_path: Path) -> Iterator[Neovim]:
    running.open(tmp_path / "a.py", CODE)
    running.wait_ready()
    yield running
    running.lua("require('gesso.next_edit').clear(vim.api.nvim_get_current_buf())")
    running.keys("<Esc>")
    running.nvim.command("silent %bwipeout!")


def marks(nvim: Neovim, kind: str) -> list[list[Any]]:
    return [rest for name, *rest in nvim.lua(MARKS) if name == kind]


def rename(nvim: Neovim) -> None:
    nvim.keys("gg0w", "ciw", "surface", "<Esc>")
    nvim.wait(lambda: marks(nvim, "old"), "proposal")


def test_the_old_text_is_marked_and_the_new_one_beside_it(nvim: Neovim) -> None:
    rename(nvim)
    assert marks(nvim, "old") == [[4, 12, 16], [5, 6, 10]], "in bytes"
    assert marks(nvim, "inline") == [[4, 16, "surface"], [5, 10, "surface"]]
    assert marks(nvim, "eol") == [[4, 0, "  Rename 2 uses of `area` to `surface`."]]


def test_tab_takes_it_and_u_undoes_it_in_one_step(nvim: Neovim) -> None:
    rename(nvim)
    nvim.keys("<Tab>")
    assert nvim.lines()[4:] == ["print('é', surface(1))", "print(surface(2))"]
    assert not marks(nvim, "old")
    nvim.keys("u")
    assert nvim.lines()[4:] == ["print('é', area(1))", "print(area(2))"]
    assert nvim.lines()[0] == "def surface(size):"


def test_another_change_hides_it_and_tab_does_what_it_did(nvim: Neovim) -> None:
    nvim.lua("vim.keymap.set('n', '<Tab>', function() Pressed = (Pressed or 0) + 1 end)")
    rename(nvim)
    nvim.keys("4G", "ix", "<Esc>")
    nvim.keys("<Tab>")
    assert nvim.lua("return Pressed") == 1
    nvim.lua("vim.keymap.del('n', '<Tab>')")


def test_in_insert_mode_tab_indents_at_the_start_of_a_line_and_takes_it_elsewhere(nvim: Neovim) -> None:
    nvim.keys("gg0w", "ciw", "surface")
    nvim.wait(lambda: marks(nvim, "old"), "proposal")
    nvim.keys("<Home>", "<Tab>")
    assert nvim.lines()[0] == "    def surface(size):"
    nvim.keys("<C-u>", "<End>")
    nvim.wait(lambda: marks(nvim, "old"), "proposal")
    nvim.keys("<Tab>")
    assert nvim.lines()[0] == "def surface(size):"
    assert nvim.lines()[5] == "print(surface(2))"


def test_tab_goes_there_first_if_it_is_off_screen(nvim: Neovim, tmp_path: Path) -> None:
    nvim.open(tmp_path / "long.py", CODE.replace("\n\n\n", "\n" * 300))
    nvim.wait_ready()
    rename(nvim)
    assert marks(nvim, "eol") == [[0, 0, "  line 302: Rename 2 uses of `area` to `surface`."]]
    nvim.keys("<Tab>")
    assert nvim.cursor()[0] == 302
    assert nvim.lines()[301] == "print('é', area(1))"
    nvim.keys("<Tab>")
    assert nvim.lines()[301:] == ["print('é', surface(1))", "print(surface(2))"]


def test_it_comes_once_the_cursor_leaves_a_half_deleted_name(nvim: Neovim) -> None:
    nvim.keys("gg0wlllx")
    nvim.wait(lambda: any("does not seem to be finished" in one for one in nvim.why()), "reason")
    assert not marks(nvim, "old")
    nvim.keys("4G")
    nvim.wait(lambda: marks(nvim, "old"), "proposal")


def test_what_was_undone_does_not_come_again(nvim: Neovim) -> None:
    rename(nvim)
    nvim.keys("<Tab>")
    nvim.keys("u")
    nvim.wait(lambda: any("You went on without" in one for one in nvim.why()), "reason")
    assert not marks(nvim, "old")


def test_escape_drops_it_and_the_kind_sleeps_until_asked_by_hand(nvim: Neovim) -> None:
    rename(nvim)
    nvim.keys("<Esc>")
    assert not marks(nvim, "old")
    nvim.keys("u", ":redo<CR>")
    nvim.wait(lambda: any("You dismissed" in one for one in nvim.why()), "reason")
    assert not marks(nvim, "old")
    nvim.keys(":Gesso next<CR>")
    nvim.wait(lambda: marks(nvim, "old"), "proposal")
