"""The plugin in a real Neovim, with the real server and the shipped model.

Each test runs with Neovim's inline completion, with the plugin's, and in an older Neovim if GESSO_NVIM_OLD names one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pynvim", reason="pynvim is not installed; it comes with the extra `dev`")

from tests.editors.neovim import NVIM, OLD_NVIM, Neovim, needs_neovim, server_options, version  # noqa: E402

pytestmark = [pytest.mark.slow, needs_neovim]

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
'''
CHECK = CODE + "        if amount <= 0:\n"
MODES = ("native", "plugin", "old")


def start(mode: str, home: Path, **settings: object) -> Neovim:
    if mode == "old" and version(OLD_NVIM) == (0, 0):
        pytest.skip("no older Neovim in GESSO_NVIM_OLD; `scripts/fetch-neovim FOLDER trixie` gets one")
    options = {**server_options(home, **settings), "native": mode == "native"}
    return Neovim(home, options, OLD_NVIM if mode == "old" else NVIM)


@pytest.fixture(scope="module", params=MODES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neovim]:
    """An editor with the model ready, shared by the tests of a mode."""
    nvim = start(request.param, tmp_path_factory.mktemp("home"))
    nvim.open(nvim.home / "first.py", CODE)
    nvim.wait_ready()
    yield nvim
    nvim.close()


@pytest.fixture
def nvim(running: Neovim, tmp_path: Path) -> Iterator[Neovim]:
    """The same editor, with a new file open."""
    running.open(tmp_path / "account.py", CHECK)
    running.wait_ready()
    running.intercept_messages()
    yield running
    running.keys("<Esc>", "<Esc>")
    running.nvim.command("silent %bwipeout!")


def start_line(nvim: Neovim) -> str:
    """Starts a line after the check of the amount, and returns the model's suggestion."""
    nvim.keys("o", "r")
    return nvim.suggest()


def start_scripted_line(nvim: Neovim) -> str:
    """The same with a scripted suggestion, for tests that do not depend on its text."""
    nvim.script("aise ValueError(amount)")
    nvim.keys("o", "r")
    return nvim.wait_ghost(lambda shown: shown.startswith("aise"))


def test_ghost_text_appears_while_typing_and_shrinks_with_it(nvim: Neovim) -> None:
    ghost = start_line(nvim)
    assert (
        nvim.line() + ghost == '            raise ValueError("the amount must be positive")'[: len(nvim.line() + ghost)]
    )
    nvim.type(ghost[0])
    assert nvim.ghost() == ghost[1:]
    nvim.type(ghost[1])
    assert nvim.ghost() == ghost[2:]


def test_typing_something_else_removes_it_at_once(nvim: Neovim) -> None:
    start_scripted_line(nvim)
    nvim.hold()
    nvim.type("§")
    assert nvim.ghost() is None


def test_a_late_answer_that_no_longer_fits_is_dropped(nvim: Neovim) -> None:
    nvim.script("alueError")
    nvim.hold()
    nvim.keys("o", "raise V")
    nvim.wait_held()
    nvim.lua("vim.o.eventignore = 'all'")  # so that the key sends no request
    nvim.keys("x")
    nvim.lua("vim.o.eventignore = ''")
    nvim.release()
    assert nvim.ghost() is None


def test_a_late_answer_that_still_fits_is_shown(nvim: Neovim) -> None:
    nvim.script("alueError")
    nvim.hold()
    nvim.keys("o", "raise V")
    nvim.wait_held()
    nvim.lua("vim.o.eventignore = 'all'")
    nvim.keys("a")
    nvim.lua("vim.o.eventignore = ''")
    nvim.release()
    nvim.wait_ghost(lambda shown: shown == "lueError")
    nvim.keys("<Tab>")
    assert nvim.line().strip() == "raise ValueError"


def test_tab_accepts_all_of_it_as_one_undo_step(nvim: Neovim) -> None:
    ghost = start_line(nvim)
    typed = nvim.line()
    nvim.keys("<Tab>")
    assert nvim.line() == typed + ghost
    assert nvim.cursor()[1] == len(typed + ghost)
    assert nvim.ghost() is None
    nvim.wait(lambda: "gesso.accepted" in dict(nvim.commands()), "report of the acceptance")
    nvim.keys("<Esc>", "u")
    assert nvim.line() == typed


def test_typing_fast_after_tab_keeps_the_order(nvim: Neovim) -> None:
    ghost = start_scripted_line(nvim)
    typed = nvim.line()
    nvim.nvim.input("<Tab>  # checked")
    nvim.wait(lambda: nvim.line().endswith("checked"), "typed text")
    assert nvim.line() == typed + ghost + "  # checked"


def test_accepting_before_the_next_answer_inserts_the_rest(nvim: Neovim) -> None:
    ghost = start_scripted_line(nvim)
    typed = nvim.line()
    nvim.nvim.input(ghost[0] + ghost[1] + "<Tab>")
    nvim.wait(lambda: nvim.line() == typed + ghost, "whole line")


def test_words_are_accepted_one_by_one(nvim: Neovim) -> None:
    ghost = start_line(nvim)
    typed = nvim.line()
    nvim.keys("<M-Right>")
    written = nvim.line()[len(typed) :]
    assert written and ghost.startswith(written) and written != ghost
    assert written.strip().isalnum()
    assert nvim.ghost() == ghost[len(written) :]
    (params,) = nvim.messages("textDocument/didPartiallyAcceptCompletion")
    assert params["acceptedLength"] == len(written)
    while nvim.ghost():
        nvim.keys("<M-Right>")
    assert nvim.line().startswith(typed + ghost)


def test_lines_are_accepted_one_by_one(nvim: Neovim) -> None:
    nvim.script("first(a)\n            second(b)\n\n        third()")
    nvim.keys("o", "x = ")
    assert nvim.wait_ghost() == "first(a)\n            second(b)\n\n        third()"
    indent = nvim.line().removesuffix("x = ")
    nvim.keys("<M-C-Right>")
    assert nvim.line() == indent + "x = first(a)"
    assert nvim.ghost() == "\n            second(b)\n\n        third()"
    nvim.keys("<M-C-Right>")
    assert nvim.lines()[-2:] == [indent + "x = first(a)", "            second(b)"]
    assert nvim.cursor() == (len(nvim.lines()), len("            second(b)"))
    assert nvim.ghost() == "\n\n        third()"
    nvim.keys("<M-C-Right>")
    assert nvim.lines()[-3:] == ["            second(b)", "", "        third()"]


def test_partial_acceptance_of_non_ascii_text(nvim: Neovim) -> None:
    nvim.script("größe 😀 ende")
    nvim.keys("o", "é😀 ")
    nvim.wait_ghost(lambda shown: shown == "größe 😀 ende")
    nvim.keys("<M-Right>")
    assert nvim.line().endswith("é😀 größe")
    nvim.keys("<M-Right>")
    assert nvim.line().endswith("é😀 größe 😀")
    lengths = [one["acceptedLength"] for one in nvim.messages("textDocument/didPartiallyAcceptCompletion")]
    assert lengths in ([5, 8], [5, 3])  # the second is of the same item, or of a new answer


def test_alternatives_cycle(nvim: Neovim) -> None:
    ghost = start_line(nvim)
    nvim.keys("<M-]>")
    other = nvim.wait_ghost(lambda shown: shown != ghost)
    nvim.keys("<M-[>")
    assert nvim.ghost() == ghost
    nvim.keys("<M-]>")
    assert nvim.ghost() == other
    line = nvim.line()
    nvim.keys("<Tab>")
    assert "\n".join(nvim.lines()).endswith(line + other)


def test_a_dismissed_suggestion_does_not_come_back(nvim: Neovim) -> None:
    start_line(nvim)
    nvim.keys("<C-]>")
    assert nvim.ghost() is None
    nvim.wait(lambda: "gesso.rejected" in dict(nvim.commands()), "report of the rejection")
    nvim.keys("<BS>", "r")
    nvim.wait(lambda: any("rejected before" in str(one) for one in nvim.execute("gesso.whyNothing")), "reason")
    assert nvim.ghost() is None


def test_a_request_by_hand(nvim: Neovim) -> None:
    nvim.keys("o", "raise Va")
    nvim.keys("<M-\\>")
    assert nvim.wait_ghost()
    assert [one["context"]["triggerKind"] for one in nvim.messages("textDocument/inlineCompletion")][-1] == 1


def test_each_suggestion_is_reported_once_as_shown(nvim: Neovim) -> None:
    ghost = start_line(nvim)
    nvim.wait(lambda: nvim.messages("textDocument/didShowCompletion"), "message")
    (params,) = nvim.messages("textDocument/didShowCompletion")
    assert params["item"]["insertText"].endswith(ghost)


def test_the_resting_cursor_is_reported_outside_insert_mode(nvim: Neovim) -> None:
    def reported() -> list[int]:
        return [one["position"]["line"] for one in nvim.messages("gesso/cursorRested")]

    nvim.keys("ggjj")
    nvim.wait(lambda: reported()[-1:] == [2], "report")
    before = reported()
    assert 0 not in before and 1 not in before, "the cursor did not rest there"
    nvim.keys("o")
    time.sleep(1.0)  # more than the pause before a report
    assert reported() == before


def test_leaving_insert_mode_removes_it(nvim: Neovim) -> None:
    start_scripted_line(nvim)
    nvim.keys("<Esc>")
    assert nvim.ghost() is None
    assert nvim.lua("return require('gesso').is_visible()") is False


def test_tab_indents_without_a_suggestion(nvim: Neovim) -> None:
    nvim.script()
    nvim.keys("o")
    indent = nvim.line()
    nvim.keys("<Tab>")
    assert len(nvim.line()) > len(indent) and not nvim.line().strip()
    nvim.keys("x", "<Tab>")
    assert nvim.line().strip() == "x" and nvim.line().endswith((" ", "\t"))


def test_tab_indents_if_the_suggestion_starts_with_an_indent(nvim: Neovim) -> None:
    nvim.script("        raise KeyError")
    nvim.keys("o", "<C-u>", "x", "<BS>")
    assert nvim.line() == ""
    assert nvim.wait_ghost() == "        raise KeyError"
    nvim.keys("<Tab>")
    assert nvim.line() and not nvim.line().strip()


def test_tab_accepts_in_the_indentation_a_suggestion_without_an_indent(nvim: Neovim) -> None:
    nvim.script("raise KeyError")
    nvim.keys("o")
    nvim.wait_ghost()
    indent = nvim.line()
    nvim.keys("<Tab>")
    assert indent and nvim.line() == indent + "raise KeyError"


def test_the_popup_menu_keeps_tab(nvim: Neovim) -> None:
    start_scripted_line(nvim)
    nvim.keys("<C-x><C-n>")
    nvim.wait(lambda: nvim.lua("return vim.fn.pumvisible()") == 1, "popup menu")
    before = nvim.line()
    with nvim.mapped("Pressed = 0 vim.keymap.set('i', '<Tab>', function() Pressed = Pressed + 1 end)"):
        nvim.keys("<Tab>")
        assert nvim.lua("return Pressed") == 1
        assert nvim.line() == before


def test_a_snippet_keeps_tab(nvim: Neovim) -> None:
    nvim.script("alueError")
    nvim.keys("o")
    nvim.lua("vim.snippet.expand('raise ${1:Name}(${2:message})')")
    nvim.keys("V")
    assert nvim.wait_ghost() == "alueError"
    with nvim.mapped("vim.keymap.set('i', '<Tab>', function() vim.snippet.jump(1) end)"):
        nvim.keys("<Tab>", "m")
    assert nvim.line().strip() == "raise V(m)"
    nvim.lua("vim.snippet.stop()")


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("vim.keymap.set('i', '<Tab>', 'plain')", "plain"),
        ("vim.keymap.set('i', '<Tab>', function() return 'called' end, { expr = true })", "called"),
        ("vim.keymap.set('i', '<Tab>', '\"word\" .. \"s\"', { expr = true })", "words"),
        ("vim.keymap.set('i', '<Tab>', function() vim.api.nvim_put({ 'put' }, 'c', false, true) end)", "put"),
        ("vim.keymap.set('i', '<Plug>(x)', 'plug') vim.keymap.set('i', '<Tab>', '<Plug>(x)', {remap = true})", "plug"),
    ],
)
def test_without_a_suggestion_tab_runs_its_previous_mapping(nvim: Neovim, mapping: str, expected: str) -> None:
    nvim.script()
    nvim.keys("o", "#")
    with nvim.mapped(mapping):
        nvim.keys("<Tab>", "!")
        assert nvim.line().strip() == f"#{expected}!"


def test_commands_and_statusline(nvim: Neovim) -> None:
    ghost = start_line(nvim)
    assert nvim.lua("return require('gesso').status()").startswith("gesso ")
    nvim.nvim.command("stopinsert")
    assert nvim.nvim.funcs.getcompletion("Gesso re", "cmdline") == ["report", "restart"]
    nvim.nvim.command("Gesso status")
    nvim.wait(lambda: "model pocket is ready" in nvim.notifications(), "status")
    nvim.nvim.command("Gesso why")
    nvim.wait(lambda: any("shown" in line for line in nvim.lines()), "reasons")
    assert nvim.lua("return vim.api.nvim_win_get_config(0).relative") == "editor"
    nvim.keys("q")
    nvim.nvim.command("Gesso report")
    nvim.wait(lambda: "## Gesso" in nvim.lines(), "report")
    assert not any(ghost in line for line in nvim.lines())
    nvim.nvim.command("close")
    nvim.nvim.command("Gesso log")
    assert nvim.nvim.funcs.expand("%:t").endswith(".log")
    nvim.nvim.command("Gesso fly")
    assert "unknown command `:Gesso fly`; use one of download, edit, log, next, report" in nvim.notifications()


def test_switched_off_and_on_again(nvim: Neovim) -> None:
    ghost = start_line(nvim)
    nvim.keys("<Cmd>Gesso toggle<CR>")
    assert nvim.ghost() is None
    assert nvim.lua("return require('gesso').status()") == "gesso off"
    nvim.keys("<Esc>", "x", "A")
    nvim.keys("<Cmd>Gesso toggle<CR>")
    nvim.keys("r")
    assert nvim.suggest() == ghost


def test_health(nvim: Neovim) -> None:
    nvim.nvim.command("checkhealth gesso")
    report = "\n".join(nvim.lines())
    assert "ERROR" not in report and "WARN" not in report, report
    for sentence in ("gesso-lsp 0", "pocket is ready", "The server runs on Python 3", "<Tab>: accept"):
        assert sentence in report, report
    nvim.nvim.command("bwipeout!")


def test_a_file_of_20000_lines(nvim: Neovim, tmp_path: Path) -> None:
    filler = "".join(f"def number_{number}():\n    return {number}\n\n\n" for number in range(5000))
    nvim.open(tmp_path / "long.py", filler + CHECK)
    nvim.wait_ready()
    ghost = start_line(nvim)
    typed = nvim.line()
    nvim.type(ghost[0])
    nvim.keys("<Tab>")
    assert nvim.line() == typed + ghost
    assert len(nvim.lines()) == 20_000 + len(CHECK.splitlines()) + 1


def test_a_killed_server_is_restarted(nvim: Neovim) -> None:
    start_line(nvim)
    (pid,) = nvim.server_pids()
    os.kill(pid, signal.SIGKILL)
    nvim.wait(lambda: nvim.server_pids() not in ([], [pid]), "new server")
    assert nvim.ghost() is None
    nvim.wait_ready()
    nvim.keys("<Esc>", "dd")
    assert start_line(nvim)


def test_restart_by_command(nvim: Neovim) -> None:
    (pid,) = nvim.server_pids()
    nvim.nvim.command("Gesso restart")
    nvim.wait(lambda: nvim.server_pids() not in ([], [pid]), "new server")
    nvim.wait_ready()
    assert start_line(nvim)


def test_a_suggestion_grows_once_the_server_has_more_of_it(nvim: Neovim) -> None:
    nvim.script("aise Value")
    nvim.keys("o", "r")
    nvim.wait_ghost(lambda shown: shown == "aise Value")
    nvim.script("aise ValueError(amount)")
    nvim.lua(
        "vim.lsp.get_clients({ name = 'gesso' })[1].handlers['gesso/suggestionExtended']"
        "(nil, { uri = vim.uri_from_bufnr(0) })"
    )
    nvim.wait_ghost(lambda shown: shown == "aise ValueError(amount)")
    nvim.type("a")
    assert nvim.ghost() == "ise ValueError(amount)"
