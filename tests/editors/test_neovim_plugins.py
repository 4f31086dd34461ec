"""Next edits in the plugins sidekick.nvim and copilot-lsp, with the real server instead of copilot-language-server.

$GESSO_NVIM_PLUGINS is a folder with checkouts `sidekick.nvim` (github.com/folke) and `copilot-lsp`
(github.com/copilotlsp-nvim). Without it these tests are skipped; `tests/lsp/test_next_edits.py` sends the same
messages.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pynvim", reason="pynvim is not installed; it comes with the extra `dev`")

from tests.editors.neovim import NVIM, ROOT, Neovim, server_options, version  # noqa: E402

PLUGINS = os.environ.get("GESSO_NVIM_PLUGINS")  # read at import, because tests run without GESSO_ variables
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(version(NVIM) < (0, 12), reason="no Neovim 0.12"),
    pytest.mark.skipif(PLUGINS is None, reason="GESSO_NVIM_PLUGINS is not set"),
]
SERVER = [sys.executable, str(ROOT / "tests" / "lsp" / "scripted_server.py")]
CODE = "def area(size):\n    return size * size\n\n\nprint('é😀', area(1))\nprint('é', area(2))\n"
DONE = CODE.replace("area", "surface").split("\n")[:-1]
START = """
local name, plugin, config, options = ...
vim.opt.runtimepath:prepend(plugin)
vim.lsp.config(name, vim.tbl_deep_extend("force", vim.json.decode(config), vim.json.decode(options)))
vim.lsp.enable(name)
"""


def start(home: Path, name: str, plugin: str, **options: object) -> Neovim:
    """Neovim with one of the plugins and this checkout's server as a client of that name."""
    nvim = Neovim(home)
    config = {"cmd": SERVER, "cmd_env": server_options(home)["cmd_env"], "root_markers": [".git"]}
    nvim.lua(START, name, f"{PLUGINS}/{plugin}", json.dumps(config), json.dumps(options))
    nvim.open(home / "a.py", CODE)
    nvim.wait(lambda: nvim.lua("return #vim.lsp.get_clients({ bufnr = 0 }) > 0"), "client")
    return nvim


@pytest.fixture
def sidekick(tmp_path: Path) -> Iterator[Neovim]:
    nvim = start(tmp_path, "gesso_copilot", "sidekick.nvim")
    nvim.lua("require('sidekick').setup({}) vim.wait(200)")
    yield nvim
    nvim.close()


@pytest.fixture
def copilot_lsp(tmp_path: Path) -> Iterator[Neovim]:
    encodings = {"general": {"positionEncodings": ["utf-16"]}}
    nvim = start(tmp_path, "copilot_ls", "copilot-lsp", capabilities=encodings)
    yield nvim
    nvim.close()


def rename(nvim: Neovim) -> None:
    nvim.keys("gg0w", "ciw", "surface", "<Esc>")


def test_sidekick_shows_and_applies_all_places(sidekick: Neovim) -> None:
    rename(sidekick)
    sidekick.wait(lambda: sidekick.lua("return require('sidekick.nes').have()"), "proposal")
    assert sidekick.lua("return #require('sidekick.nes')._edits") == 2
    assert sidekick.lua("return require('sidekick.nes').apply()")
    sidekick.wait(lambda: sidekick.lines() == DONE, "rename")
    assert not sidekick.notifications()


def test_copilot_lsp_shows_and_applies_one_place_after_the_other(copilot_lsp: Neovim) -> None:
    rename(copilot_lsp)
    for line in (4, 5):
        copilot_lsp.wait(lambda: copilot_lsp.lua("return vim.b.nes_state ~= nil"), "proposal")
        assert copilot_lsp.lua("return vim.b.nes_state.range.start.line") == line
        copilot_lsp.lua("require('copilot-lsp.nes').apply_pending_nes()")
        copilot_lsp.wait(lambda line=line: copilot_lsp.lines()[line] == DONE[line], "rename")  # type: ignore[misc]
    assert not copilot_lsp.notifications()
