"""Makes docs/images/neovim*.svg: a real Neovim in a terminal (tmux) with a suggestion, a next edit or a rewrite of the
coder, which has to be downloaded before.

GESSO_NVIM=... python -m tests.editors.neovim_screenshot [NAME…], names of `PICTURES`
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pynvim
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from infill.downloads import models_folder
from tests.editors.neovim import GHOST, NVIM, PLUGIN, ROOT, server_options

COLUMNS, ROWS = 96, 20
WAIT_S = 120.0
INIT = """
vim.opt.runtimepath:append(%s)
vim.o.termguicolors, vim.o.number, vim.o.swapfile, vim.o.showmode = true, true, false, false
vim.o.laststatus, vim.o.expandtab, vim.o.shiftwidth = 2, true, 4
vim.o.statusline = " %%t%%m%%=%%{v:lua.require'gesso'.status()}  %%l:%%c "
require("gesso").setup(vim.json.decode(%s))
"""
PROPOSED = "return require('gesso.next_edit').is_visible()"
STATE = """
local found, server = pcall(require, "gesso.server") -- not before init.lua has been read
return found and server.state.state
"""
CODE = '''\
class Account:
    """Money that belongs to somebody."""

    def __init__(self, owner, balance):
        self.owner = owner
        self.balance = balance

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("the amount must be positive")
        self.balance = self.balance + amount
        return self.balance

    def withdraw(self, amount):
        if amount <= 0:
'''
THEME = TerminalTheme(
    (20, 22, 27),
    (224, 226, 234),
    [(7, 8, 13), (255, 192, 185), (179, 246, 192), (252, 224, 148)]
    + [(166, 219, 255), (255, 202, 255), (140, 248, 247), (238, 241, 248)],
)


def lua_text(value: str) -> str:
    return f"[==[{value}]==]"


def main() -> None:
    """Makes the pictures named on the command line, or all."""
    if NVIM is None:
        sys.exit("No Neovim was found; set GESSO_NVIM, or fetch one with scripts/fetch-neovim.")
    for name in sys.argv[1:] or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            screen = capture(Path(folder), PICTURES[name])
        console = Console(width=COLUMNS, record=True, file=open("/dev/null", "w"))
        console.print(Text.from_ansi(screen), end="")
        target = ROOT / "docs" / "images" / f"{name}.svg"
        console.save_svg(str(target), title="nvim account.py", theme=THEME)
        print(target)


def suggestion(nvim: pynvim.Nvim) -> None:
    """Types until the model suggests something."""
    type_keys(nvim, "Go", *"raise ")
    wait(lambda: nvim.exec_lua(GHOST), "suggestion")


def next_edit(nvim: pynvim.Nvim) -> None:
    """Renames a parameter."""
    type_keys(nvim, "Gdk", "gg", "4Gf,;", "w", "ciw", *"money", "<Esc>")
    wait(lambda: nvim.exec_lua(PROPOSED), "next edit")


def rewrite(nvim: pynvim.Nvim) -> None:
    """Types the command of a rewrite, with the lines selected."""
    type_keys(nvim, "Gdk", "8GV3j", ":", *"Gesso edit accept only whole amounts")


PICTURES: dict[str, Callable[[pynvim.Nvim], None]] = {
    "neovim": suggestion,
    "neovim-next-edit": next_edit,
    "neovim-rewrite": rewrite,
}


def type_keys(nvim: pynvim.Nvim, *keys: str) -> None:
    for one in keys:
        nvim.input(one)
        time.sleep(0.3)


def capture(home: Path, act: Callable[[pynvim.Nvim], None]) -> str:
    """Returns the screen with its colours as escape sequences."""
    file, init, socket = home / "account.py", home / "init.lua", home / "nvim.sock"
    file.write_text(CODE)
    models = home / "data" / "gesso" / "models"
    models.parent.mkdir(parents=True)
    models.symlink_to(models_folder())
    options = {**server_options(home), "settings": {"delayMs": 0}}
    options["cmd_env"] |= {"GESSO_MODEL": "coder", "XDG_DATA_HOME": str(home / "data")}
    init.write_text(INIT % (lua_text(str(PLUGIN)), lua_text(json.dumps(options))))
    terminal = Terminal(home / "tmux.sock")
    try:
        terminal.start(f"HOME={home} {NVIM} --clean -u {init} --listen {socket} {file}")
        wait(socket.exists, "Neovim")
        nvim = pynvim.attach("socket", path=str(socket))
        wait(lambda: nvim.exec_lua(STATE) == "ready", "model")
        act(nvim)
        time.sleep(0.5)  # for the terminal to draw
        return terminal.screen()
    finally:
        terminal.stop()


class Terminal:
    """A separate tmux server with one window."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self.socket), "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def start(self, command: str) -> None:
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        settings = ["set", "-g", "default-terminal", "tmux-256color", ";", "set", "-g", "status", "off"]
        self.tmux(*settings, ";", "new-session", "-d", *size, f"COLORTERM=truecolor {command}")

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-e")

    def stop(self) -> None:
        subprocess.run(["tmux", "-S", str(self.socket), "kill-server"], capture_output=True, check=False)


def wait(until: Callable[[], object], what: str) -> None:
    """Waits until it is true; exits the program after `WAIT_S` seconds."""
    deadline = time.monotonic() + WAIT_S
    while not until():
        if time.monotonic() > deadline:
            sys.exit(f"There was no {what} within {WAIT_S:.0f} seconds.")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
