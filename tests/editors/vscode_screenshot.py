"""Makes docs/images/vscode*.png: a real VS Code with a suggestion, a next edit or a rewrite of the coder, which has to
be downloaded before.

GESSO_CODE_SERVER=... python -m tests.editors.vscode_screenshot [NAME…], names of `PICTURES`
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from infill.downloads import models_folder
from tests.editors.vscode import ROOT, VSCode, build_extension, eventually, find_tools, vscode

WAIT_S = 120.0
CODE = '''\
import json
from pathlib import Path

DEFAULTS = {"theme": "dark", "tab_width": 4}


def read_settings(folder: Path) -> dict:
    """The settings of a project; those that its file does not name have their default."""
    file = folder / "settings.json"
    if not file.exists():
        return dict(DEFAULTS)
    with file.open() as handle:


def write_settings(folder: Path, settings: dict) -> None:
    file = folder / "settings.json"
    with file.open("w") as handle:
        json.dump(settings, handle, indent=2)
'''
WHOLE = CODE.replace("as handle:\n\n\n", "as handle:\n        return json.load(handle)\n\n\n")
TYPED, LINE = "\nreturn ", 12
CLIP = {"x": 0, "y": 0, "width": 1200, "height": 700}


SMALL_CLIP = {"x": 0, "y": 0, "width": 1200, "height": 480}
INSTRUCTION = "print a warning before returning"


def main() -> None:
    """Makes the pictures named on the command line, or all."""
    tools = find_tools()
    if isinstance(tools, str):
        sys.exit(tools)
    build_extension(tools)
    settings = {"gesso.server.command": [sys.executable, "-m", "lsp"], "gesso.model": "coder"}
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "data" / "gesso" / "models"
        models.parent.mkdir(parents=True)
        models.symlink_to(models_folder())
        with vscode(tools, Path(folder), settings) as window:
            window.command("View: Toggle Primary Side Bar Visibility")  # to have room for the reason of an edit
            window.open("settings.py", CODE, LINE)
            eventually(lambda: "Ready" in window.state(), "the model is ready", WAIT_S)
            window.close_editors()
            for name in sys.argv[1:] or PICTURES:
                clip = PICTURES[name](window)
                time.sleep(2.0)  # for the status bar
                target = ROOT / "docs" / "images" / f"{name}.png"
                window.browser("screenshot", str(target), clip)
                print(target)
                window.press("Escape")
                window.close_editors()


def suggestion(window: VSCode) -> dict[str, int]:
    """Types until the model suggests something."""
    window.open("settings.py", CODE, LINE)
    window.type(TYPED, 250)
    eventually(window.ghost, "a suggestion", WAIT_S)
    return CLIP


def next_edit(window: VSCode) -> dict[str, int]:
    """Renames a parameter."""
    window.open(
        "settings.py", WHOLE, WHOLE.split("\n").index("def write_settings(folder: Path, settings: dict) -> None:") + 1
    )
    window.press("Home", *["ArrowRight"] * len("def write_settings(folder: Path, settings"))
    window.press(*["Backspace"] * len("settings"))
    window.type("values")
    eventually(lambda: "Rename" in window.after(), "a next edit", WAIT_S)
    return SMALL_CLIP


def rewrite(window: VSCode) -> dict[str, int]:
    """Asks for a rewrite of two lines of a function."""
    lines = WHOLE.split("\n")
    window.open("settings.py", WHOLE, lines.index("    if not file.exists():") + 1)
    window.press("Home", "Shift+ArrowDown", "Shift+End")
    window.command("Gesso: Rewrite the Selection…")
    eventually(lambda: window.browser("count", ".quick-input-widget input:focus"), "the prompt for an instruction")
    window.type(INSTRUCTION, 5)
    window.press("Enter")
    eventually(lambda: "Accept (Tab)" in window.messages(), "a rewrite", WAIT_S)
    return CLIP


PICTURES: dict[str, Callable[[VSCode], dict[str, int]]] = {
    "vscode": suggestion,
    "vscode-next-edit": next_edit,
    "vscode-rewrite": rewrite,
}


if __name__ == "__main__":
    main()
