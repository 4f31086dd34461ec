"""Setup of the plugin in a real Neovim: options, a missing server, a loading model, the help file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pynvim", reason="pynvim is not installed; it comes with the extra `dev`")

from tests.editors.neovim import NVIM, PLUGIN, ROOT, Neovim, needs_neovim, server_options  # noqa: E402
from tests.editors.services import default_location  # noqa: E402
from tests.infill.local_hub import local_hub  # noqa: E402
from tests.lsp.small_coder import CONTENT  # noqa: E402
from tests.services import no_service_starts  # noqa: E402
from tests.waiting import PATIENCE_S  # noqa: E402

pytestmark = [pytest.mark.slow, needs_neovim]

CODE = """\
def check(amount):
    if amount <= 0:
        raise ValueError("the amount must be positive")


def check_again(amount):
    if amount <= 0:
"""

LAZY = """
vim.opt.runtimepath:append(%s)
vim.api.nvim_create_autocmd(%s, { once = true, callback = function()
  require("gesso").setup(vim.json.decode(%s))
end })
"""


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Neovim]:
    """An editor with the plugin installed but not set up."""
    nvim = Neovim(tmp_path)
    yield nvim
    nvim.close()


def test_typing_works_while_the_model_is_loading(bare: Neovim, tmp_path: Path) -> None:
    with no_service_starts(default_location()):
        bare.set_up(server_options(tmp_path))
        bare.open(tmp_path / "amounts.py", CODE)
        bare.wait(lambda: bare.state() == "loading", "loading model")
        assert bare.lua("return require('gesso').status()") == "gesso loading"
        bare.keys("o", "ra", "<Tab>")
        assert bare.line().strip() == "ra"
    bare.wait_ready()
    bare.keys("<Esc>", "ddo", "ra")
    assert bare.suggest()


def test_a_missing_server_is_reported(bare: Neovim, tmp_path: Path) -> None:
    bare.set_up({"cmd": ["no-such-gesso"]})
    bare.open(tmp_path / "amounts.py", CODE)
    message = bare.notifications()
    assert "`no-such-gesso` was not found" in message and ":checkhealth gesso" in message
    bare.nvim.command("checkhealth gesso")
    assert any("`no-such-gesso` was not found" in line for line in bare.lines())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"comand": ["x"]}, "unknown option `comand`; use one of auto_restart, cmd,"),
        ({"cmd": "gesso-lsp"}, "the option `cmd` must be a list of strings"),
        ({"keys": {"acept": "x"}}, "unknown key `acept`"),
        ({"keys": {"accept": 3}}, "the key `accept` must be a key such as <Tab>, or false"),
        ({"debounce_ms": -1}, "the option `debounce_ms` must be a whole number of milliseconds"),
    ],
)
def test_invalid_options_are_described(bare: Neovim, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(Exception, match="gesso") as error:
        bare.set_up(options)
    assert sentence in str(error.value)


def test_the_help_has_its_tags(bare: Neovim, tmp_path: Path) -> None:
    shutil.copytree(PLUGIN / "doc", tmp_path / "plugin" / "doc")
    bare.lua("vim.opt.runtimepath:append(...)", str(tmp_path / "plugin"))
    bare.nvim.command(f"helptags {tmp_path}/plugin/doc")
    for tag in ("gesso", "gesso-options", "gesso-keys", ":Gesso", "gesso.status()"):
        bare.nvim.command(f"help {tag}")
        assert bare.nvim.funcs.expand("%:t") == "gesso.txt"


@pytest.mark.parametrize("event", ["BufReadPre", "BufEnter"])
def test_a_late_setup_serves_the_file_that_neovim_was_started_with(event: str, tmp_path: Path) -> None:
    options = {**server_options(tmp_path), "cmd": scripted_server()}
    (tmp_path / "init.lua").write_text(LAZY % (lua(str(PLUGIN)), lua(event), lua(json.dumps(options))))
    (tmp_path / "amounts.py").write_text(CODE)
    wait = "lua vim.wait(60000, function() return #vim.lsp.get_clients({ bufnr = 0, name = 'gesso' }) > 0 end)"
    report = "lua io.write(vim.bo.filetype, ' ', #vim.lsp.get_clients({ bufnr = 0 }))"
    command = [str(NVIM), "--headless", "--clean", "-u", "init.lua", "amounts.py", f"+{wait}", f"+{report}", "+qall!"]
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout == "python 1", done.stderr


def test_a_changed_file_type_reopens_the_document(bare: Neovim, tmp_path: Path) -> None:
    bare.set_up({**server_options(tmp_path), "cmd": scripted_server()})
    bare.open(tmp_path / "amounts.py", CODE)
    bare.wait(lambda: bare.lua("return #vim.lsp.get_clients({ bufnr = 0 }) == 1"), "client of the buffer")
    bare.intercept_messages()
    bare.nvim.command("setfiletype python | set filetype=lua")
    bare.wait(lambda: bare.messages("textDocument/didOpen"), "message")
    assert bare.messages("textDocument/didClose")
    (opened,) = bare.messages("textDocument/didOpen")
    assert opened["textDocument"]["languageId"] == "lua"


def test_a_second_project_joins_the_workspace(bare: Neovim, tmp_path: Path) -> None:
    options = server_options(tmp_path, disabledPaths=["/private/"])
    bare.set_up({**options, "root_markers": ["project.txt"], "cmd": scripted_server()})
    for name in ("one", "two", "three"):
        (tmp_path / name / "private").mkdir(parents=True)
        (tmp_path / name / "project.txt").write_text("")
        bare.open(tmp_path / name / "private" / "amounts.py", CODE)  # two and three before the server is ready
    bare.wait_ready()
    for name in ("one", "two", "three"):
        bare.nvim.command(f"silent edit {tmp_path}/{name}/private/amounts.py")
        bare.keys("<Esc>", "o", "raise ")
        bare.wait(lambda: "This file matches a pattern" in "".join(bare.why()[:1]), f"private file in {name}")
        bare.keys("<Esc>", ":w<CR>")
    assert len(bare.lua("return vim.lsp.get_clients({ name = 'gesso' })[1].workspace_folders")) == 3
    assert len(bare.server_pids()) == 1


def test_bytes_that_are_not_utf_8_keep_the_document_in_step(bare: Neovim, tmp_path: Path) -> None:
    bare.set_up(server_options(tmp_path))
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9 \xe9\xe9\n" + CODE.encode())
    bare.nvim.command(f"silent edit ++bad=keep ++enc=utf-8 {tmp_path}/latin.py")
    bare.wait_ready()
    bare.keys("gg", "A", "\u00e9x", "<Esc>", "0", "x", "Go", "rai")
    assert bare.suggest()
    assert bare.execute("gesso.whyNothing")[0]["line"] == bare.cursor()[0]


def test_the_code_model_is_offered_when_the_user_pauses(bare: Neovim, tmp_path: Path) -> None:
    """The scripted server has a small file as the code model."""
    options = {**server_options(tmp_path, model="auto"), "cmd": scripted_server()}
    with local_hub(CONTENT, 0) as hub:
        hub.complete.set()
        options["cmd_env"] |= {"HF_ENDPOINT": hub.address, "XDG_DATA_HOME": str(tmp_path / "server")}
        bare.lua(
            "vim.o.updatetime = 100 vim.ui.select = function(items, options, choose) "
            "Titles, Choose = vim.tbl_map(options.format_item, items), function() choose(items[1]) end end"
        )
        bare.set_up(options)
        bare.open(tmp_path / "amounts.py", CODE)
        bare.keys("o", "ra")
        bare.wait(lambda: bare.lua("return #vim.api.nvim_get_autocmds({ event = 'CursorHold' }) > 0"), "question")
        bare.type("ise")
        time.sleep(0.5)
        assert bare.lua("return Titles") is None and bare.line().strip() == "raise" and bare.mode() == "i"
        bare.keys("<Esc>")
        bare.wait(lambda: bare.lua("return Titles"), "choices")
        assert bare.lua("return Titles") == ["Download", "Not Now", "Never"]
        bare.lua("Choose()")
        bare.wait(lambda: bare.lua("return require('gesso.server').state.model") == "coder", "the code model")
        assert "Gesso: downloading coder in the background" in bare.notifications()


def scripted_server() -> list[str]:
    """The command of a server that loads no model."""
    return [sys.executable, str(ROOT / "tests" / "lsp" / "scripted_server.py")]


def lua(value: str) -> str:
    return f"[==[{value}]==]"
