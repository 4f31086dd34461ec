"""Makes docs/images/vscode.png: a real VS Code with a suggestion of the coder, which has to be downloaded before.

GESSO_CODE_SERVER=... python -m tests.editors.vscode_screenshot [FILE.png]
"""

from __future__ import annotations

import sys
import tempfile
import time
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
TYPED, LINE = "\nreturn ", 12
CLIP = {"x": 0, "y": 0, "width": 1200, "height": 700}


def main() -> None:
    """Writes the picture to the file named on the command line, or to docs/images/vscode.png."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "vscode.png"
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
            capture(window, target)
    print(target)


def capture(window: VSCode, target: Path) -> None:
    """Types until the model suggests something, and takes the picture."""
    window.open("settings.py", CODE, LINE)
    eventually(lambda: "Ready" in window.state(), "the model is ready", WAIT_S)
    window.type(TYPED, 250)
    eventually(window.ghost, "a suggestion", WAIT_S)
    time.sleep(2.0)  # for the status bar
    window.browser("screenshot", str(target), CLIP)


if __name__ == "__main__":
    main()
