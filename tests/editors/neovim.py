"""Drives a real Neovim over its RPC channel: sends keys, reads text and ghost text.

Neovim is $GESSO_NVIM, or `nvim` on PATH. Its home, its state and the server's statistics are in a temporary folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pynvim
import pytest

from tests.editors.services import runtime_folder
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "editors" / "nvim"
NVIM = os.environ.get("GESSO_NVIM") or shutil.which("nvim")
OLD_NVIM = os.environ.get("GESSO_NVIM_OLD")  # 0.10 or 0.11

GHOST = """
local found = {}
for _, name in ipairs({ "gesso", "nvim.lsp.inline_completion" }) do
  local space = vim.api.nvim_create_namespace(name)
  for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { details = true })) do
    local lines = { mark[4].virt_text or {} }
    vim.list_extend(lines, mark[4].virt_lines or {})
    local texts = {}
    for _, line in ipairs(lines) do
      local text = ""
      for _, chunk in ipairs(line) do
        if not chunk[1]:find("^ %(%d+/%d+%)$") then
          text = text .. chunk[1]
        end
      end
      texts[#texts + 1] = text
    end
    found[#found + 1] = { name = name, row = mark[2], column = mark[3], text = table.concat(texts, "\\n") }
  end
end
return found
"""

INTERCEPT = """
Sent, Answer, Held = {}, nil, nil
local rpc = vim.lsp.get_clients({ name = 'gesso' })[1].rpc
if Intercepted == rpc then
  return
end
Intercepted = rpc

local function typed_since(start, position)
  local ok, lines = pcall(vim.api.nvim_buf_get_text, 0, start.line, start.byte, position.line, position.byte, {})
  return ok and table.concat(lines, "\\n") or nil
end

local function scripted_result(position)
  local function remainders(typed)
    local items = {}
    for _, text in ipairs(Answer) do
      if vim.startswith(text, typed) and text ~= typed then
        items[#items + 1] = { insertText = text:sub(#typed + 1), range = { start = position, ['end'] = position } }
      end
    end
    return items
  end
  local typed = Start and typed_since(Start, position)
  local items = typed and remainders(typed) or {}
  if #items == 0 and typed ~= Answer[1] then -- the user typed something else: suggest from here again
    Start = position
    items = remainders("")
  end
  return { items = items }
end

for _, kind in ipairs({ 'request', 'notify' }) do
  local send = rpc[kind]
  rpc[kind] = function(method, params, callback, ...)
    Sent[#Sent + 1] = vim.json.encode({ method, params or {} })
    if method == 'textDocument/inlineCompletion' and Answer then
      local position = vim.deepcopy(params.position)
      position.byte = vim.api.nvim_win_get_cursor(0)[2]
      local result = scripted_result(position)
      local function reply()
        callback(nil, result)
      end
      if Held then
        Held[#Held + 1] = reply
      else
        vim.schedule(reply)
      end
      return true, -#Sent
    end
    return send(method, params, callback, ...)
  end
end
"""


def version(nvim: str | None) -> tuple[int, int]:
    """Major and minor version of the program; (0, 0) if there is none."""
    if nvim is None:
        return 0, 0
    try:
        output = subprocess.run([nvim, "--version"], capture_output=True, text=True, timeout=PATIENCE_S).stdout
    except OSError:
        return 0, 0
    match = re.match(r"NVIM v(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else (0, 0)


needs_neovim = pytest.mark.skipif(
    version(NVIM) < (0, 12), reason="no Neovim 0.12 on PATH or in GESSO_NVIM; scripts/fetch-neovim gets one"
)


def server_options(home: Path, **settings: Any) -> dict[str, Any]:
    """Options of `setup()` that start this checkout's server, with a service of the tests, and let it offer all
    it finds, at once."""
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(home), "GESSO_THREADS": "1", "GESSO_MODEL": "pocket"}
    return {
        "cmd": [sys.executable, "-m", "lsp"],
        "cmd_env": {**environment, "XDG_RUNTIME_DIR": runtime_folder()},
        "settings": {"delayMs": 0, "minConfidence": 0, "eagerness": "eager", **settings},
    }


class Neovim:
    """A running editor. options: of `setup()`; None: the plugin is installed but not set up."""

    def __init__(self, home: Path, options: dict[str, Any] | None = None, nvim: str | None = NVIM) -> None:
        assert nvim is not None
        folders = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
        environment = [f"{name}={value}" for name, value in {**folders, "HOME": str(home)}.items()]
        arguments = ["--embed", "--headless", "--clean", "--cmd", "set shortmess+=I noswapfile"]
        self.home = home
        self.nvim = pynvim.attach("child", argv=["env", *environment, nvim, *arguments])
        self.nvim.api.set_option_value("runtimepath", f"{PLUGIN},{self.nvim.options['runtimepath']}", {})
        self.lua("vim.cmd.runtime('plugin/gesso.lua') vim.cmd('filetype plugin indent on') vim.o.columns = 120")
        self.lua("vim.notify = function(text) Notified = (Notified or '') .. text .. '\\n' end")
        if options is not None:
            self.set_up(options)

    def set_up(self, options: dict[str, Any]) -> None:
        """Calls the plugin's `setup()`. Raises pynvim.NvimError for its error."""
        self.lua("require('gesso').setup(vim.json.decode(...))", json.dumps(options))

    def lua(self, code: str, *arguments: Any) -> Any:
        return self.nvim.exec_lua(code, *arguments)

    def open(self, path: Path, text: str) -> None:
        """Opens a new file with this text, with the cursor at the end of its last line, in normal mode."""
        path.write_text(text)
        self.nvim.command(f"silent edit! {path}")
        self.keys("G$")

    def keys(self, *keys: str) -> None:
        """Sends keys in Neovim's notation, and waits until each argument is processed."""
        for key in keys:
            self.nvim.input(key)
            self.nvim.api.get_mode()
            self.lua("return 0")

    def type(self, text: str) -> None:
        """Types characters one by one, literally except for \\n."""
        self.keys(*({"\n": "<CR>", "<": "<lt>"}.get(character, character) for character in text))

    def lines(self) -> list[str]:
        found: list[str] = self.nvim.api.buf_get_lines(0, 0, -1, True)
        return found

    def line(self) -> str:
        found: str = self.nvim.api.get_current_line()
        return found

    def cursor(self) -> tuple[int, int]:
        """1-based line, 0-based byte."""
        row, column = self.nvim.api.win_get_cursor(0)
        return row, column

    def mode(self) -> str:
        found: str = self.nvim.api.get_mode()["mode"]
        return found

    def marks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.lua(GHOST)
        return found

    def ghost(self) -> str | None:
        """The visible ghost text without its count; None if there is none."""
        marks = self.marks()
        assert len(marks) < 2, marks
        return marks[0]["text"] if marks else None

    def drawn_by(self) -> str | None:
        marks = self.marks()
        return marks[0]["name"] if marks else None

    def notifications(self) -> str:
        """All messages of `vim.notify` so far."""
        return self.lua("return Notified or ''") or ""

    def wait(self, until: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """Waits for a true value of `until` and returns it."""
        deadline = time.monotonic() + patience_s
        while not (value := until()):
            if time.monotonic() > deadline:
                details = (self.lines()[:20], self.marks(), self.notifications(), self.why())
                raise AssertionError(f"no {what}; {details}")
            time.sleep(0.02)
        return value

    def wait_ghost(self, accept: Callable[[str], bool] = bool) -> str:
        def now() -> str | None:
            ghost = self.ghost()
            return ghost if ghost and accept(ghost) else None

        found: str = self.wait(now, "ghost text")
        return found

    def wait_no_ghost(self) -> None:
        self.wait(lambda: self.ghost() is None, "end of the ghost text")

    def suggest(self) -> str:
        """Waits for ghost text at the cursor, in insert mode.

        On a busy machine the model may miss the deadline. A request by hand then gives it more time, and the server
        caches the result.
        """

        def is_answered() -> bool:
            records = self.execute("gesso.whyNothing") or []
            return bool(self.ghost()) or bool(records) and records[0]["outcome"] in ("nothing", "failed")

        with suppress(AssertionError):
            self.wait(is_answered, "answer", PATIENCE_S / 8)
        if not self.ghost():
            self.keys("<M-\\>")
            self.wait_ghost()
            self.keys("<Esc>", "a")
        return self.wait_ghost()

    def state(self) -> str:
        found: str = self.lua("return require('gesso.server').state.state")
        return found

    def wait_ready(self) -> None:
        self.wait(lambda: self.state() == "ready", "ready model")
        self.wait(lambda: self.lua("return vim.lsp.get_clients({bufnr = 0})[1] ~= nil"), "client of the buffer")

    def execute(self, command: str, *arguments: Any) -> Any:
        """The result of one of the server's commands."""
        code = (
            "local client, done, answer = vim.lsp.get_clients({ name = 'gesso' })[1], false, nil "
            "if not client then return nil end "
            "require('gesso.server').execute(..., { select(2, ...) }, "
            "function(result) done, answer = true, result end) "
            "vim.wait(60000, function() return done end, 5) return answer"
        )
        return self.lua(code, command, *arguments)

    def why(self) -> list[str]:
        records = self.execute("gesso.whyNothing") or []
        return [f"{one['outcome']}: {one.get('sentence')}" for one in records[:5]]

    def intercept_messages(self) -> None:
        """Records the messages to the server for `messages`, and undoes `script`."""
        self.lua(INTERCEPT)

    def script(self, *texts: str) -> None:
        """Replaces the server's suggestions with these. Typing along one leaves its remainder, as with the server."""
        self.lua("Answer, Start = vim.json.decode(...), nil", json.dumps(texts))

    def hold(self) -> None:
        """Delays scripted suggestions until `release`."""
        self.lua("Held = {}")

    def wait_held(self) -> None:
        """Waits for a request at the cursor. The line must be ASCII."""

        def is_requested() -> bool:
            requests = self.messages("textDocument/inlineCompletion")
            return bool(requests) and requests[-1]["position"]["character"] == self.cursor()[1]

        self.wait(is_requested, "request")

    def release(self) -> None:
        """Delivers the delayed suggestions."""
        self.lua("local held = Held Held = nil for _, reply in ipairs(held) do reply() end")

    @contextmanager
    def mapped(self, mapping: str) -> Iterator[None]:
        """Runs Lua that maps Tab globally in insert mode, and restores the previous mapping afterwards."""
        self.lua("SavedTab = vim.iter(vim.api.nvim_get_keymap('i')):find(function(one) return one.lhs == '<Tab>' end)")
        self.lua(mapping)
        yield
        self.lua(
            "vim.keymap.del('i', '<Tab>') "
            "if SavedTab then vim.keymap.set('i', '<Tab>', SavedTab.callback, { expr = true }) end"
        )

    def messages(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the messages with that method, oldest first."""
        sent = [json.loads(one) for one in self.lua("return Sent")]
        return [params for name, params in sent if name == method]

    def commands(self) -> list[tuple[str, list[Any]]]:
        """The server's commands that were executed, with their arguments."""
        return [(one["command"], one["arguments"]) for one in self.messages("workspace/executeCommand")]

    def server_pids(self) -> list[int]:
        """The running servers of this editor."""
        children = self.lua("return vim.api.nvim_get_proc_children(vim.fn.getpid())")
        return [pid for pid in children if b"lsp" in _command_line(pid)]

    def close(self) -> None:
        try:
            self.nvim.command("qall!", async_=True)
            self.nvim.close()
        except OSError:
            pass


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
