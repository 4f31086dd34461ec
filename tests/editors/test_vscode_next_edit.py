"""Next edits in a real VS Code with the real server; the model is not needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.editors.vscode import VSCode, eventually, find_tools, with_server

tools = find_tools()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(isinstance(tools, str), reason=tools if isinstance(tools, str) else ""),
]
CODE = "def area(size):\n    return size * size\n\n\nprint('é', area(1))\nprint(area(2))\n"
DONE = CODE.replace("area", "surface")
RENAMED = CODE.replace("area", "surface", 1)
TO_TAB_STOP = 4 - len("def surface(size):") % 4  # spaces that Tab inserts at the end of the line


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSCode]:
    root = tmp_path_factory.mktemp("vscode")
    with with_server(root, "scripted_server.py", **{"editor.inlineSuggest.enabled": False}) as opened:
        yield opened


@pytest.fixture
def code(window: VSCode) -> Iterator[VSCode]:
    yield window
    window.close_editors()


def rename(code: VSCode, name: str, text: str = CODE) -> None:
    """Opens a file and types a new name of the function."""
    code.open(name, text)
    code.press("Home", *["ArrowRight"] * 8, *["Backspace"] * 4)
    code.type("surface")


def proposed(code: VSCode, what: str = "Rename 2 uses of `area` to `surface`.") -> None:
    eventually(lambda: what in code.after(), f"the proposal {what}")


def test_tab_takes_it_in_one_undo_step(code: VSCode) -> None:
    rename(code, "one.py")
    proposed(code)
    assert code.after().count("surface") == 3, "two places and the reason"
    code.press("Tab")
    eventually(lambda: "print(surface(2))" in code.lines(), "the rename")
    code.saves("one.py", DONE)
    code.press("Control+z")
    eventually(lambda: "print(area(2))" in code.lines(), "the old text")
    code.saves("one.py", RENAMED)


def test_it_comes_once_the_cursor_leaves_a_half_deleted_name(code: VSCode) -> None:
    code.open("five.py", "def total(size):\n    return size\n\n\nprint(total(1))\n")
    code.press("Home", *["ArrowRight"] * 14, "Backspace")
    code.press("ArrowDown", "ArrowDown")
    proposed(code, "Rename 1 use of `size` to `siz`.")
    code.command("Gesso: Take the Next Edit")
    eventually(lambda: "    return siz" in code.lines(), "the rename")


def test_escape_drops_it_and_tab_is_a_tab_again(code: VSCode) -> None:
    rename(code, "two.py")
    proposed(code)
    code.press("Escape")
    eventually(lambda: "Rename" not in code.after(), "no proposal")
    code.press("End", "Tab")
    code.saves("two.py", RENAMED.replace("(size):\n", f"(size):{' ' * TO_TAB_STOP}\n", 1))


def test_tab_indents_at_the_start_of_a_line(code: VSCode) -> None:
    rename(code, "three.py")
    code.command("Gesso: Next Edit")
    proposed(code)
    code.press("Home", "Tab")
    eventually(lambda: "    def surface(size):" in code.lines(), "indentation")


def test_tab_goes_there_first_if_it_is_off_screen(code: VSCode) -> None:
    rename(code, "four.py", CODE.replace("\n\n\n", "\n" * 300))
    code.command("Gesso: Next Edit")
    proposed(code, "line 302: Rename 2 uses")
    code.press("Tab")
    eventually(lambda: code.cursor()[0] == 302, "the cursor at the place")
    code.press("Tab")
    code.saves("four.py", DONE.replace("\n\n\n", "\n" * 300))
