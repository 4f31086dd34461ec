"""VS Code for tests: code-server with the extension, and a headless browser that shows it.

`scripts/fetch-code-server FOLDER` fetches the tools. Must not know what Gesso suggests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.editors.services import runtime_folder
from tests.gate import Gate
from tests.ports import free_port
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
EXTENSION = ROOT / "editors" / "vscode"
CODE_SERVER = os.environ.get("GESSO_CODE_SERVER")  # read at import, because tests run without GESSO_ variables
FETCH = "run `scripts/fetch-code-server FOLDER`, then set GESSO_CODE_SERVER=FOLDER/bin/code-server"
SETTINGS: dict[str, Any] = {
    "chat.disableAIFeatures": True,
    "editor.fontSize": 16,
    "editor.minimap.enabled": False,
    "editor.quickSuggestions": "off",  # otherwise VS Code drops a suggestion after 750 ms and opens its own list
    "extensions.ignoreRecommendations": True,
    "files.autoSave": "onFocusChange",  # otherwise closing an inactive editor asks for confirmation
    "git.enabled": False,
    "telemetry.telemetryLevel": "off",
    "update.mode": "none",
    "window.commandCenter": False,
    "workbench.colorTheme": "Default Dark Modern",
    "workbench.hover.delay": 600_000,  # otherwise a tooltip hides the item under the mouse
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
}

Value = TypeVar("Value")


@dataclass(frozen=True)
class Tools:
    """Paths of the programs and modules that the tests run."""

    code_server: str
    node: str
    playwright: str
    chromium: str


def find_tools() -> Tools | str:
    """The tools, or a sentence that says what is missing."""
    code_server = CODE_SERVER or shutil.which("code-server")
    if code_server is None or not Path(code_server).exists():
        return f"code-server was not found; {FETCH}"
    folder = Path(code_server).resolve().parents[1]
    node = folder / "bin" / "node"
    playwright = folder / "node_modules" / "playwright-core"
    if not node.exists() or not playwright.exists():
        return f"{code_server} has no node with playwright-core beside it; {FETCH}"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return f"Chromium was not found; {FETCH}"
    if not (EXTENSION / "node_modules").exists():
        return "editors/vscode has no node_modules; run `npm ci` there"
    return Tools(code_server, str(node), str(playwright), chromium)


def build_extension(tools: Tools) -> Path:
    """Builds the .vsix from the sources."""
    environment = dict(os.environ, PATH=f"{Path(tools.node).parent}{os.pathsep}{os.environ['PATH']}")
    command = ["npm", "run", "--silent", "vsix"]
    done = subprocess.run(command, cwd=EXTENSION, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return EXTENSION / "gesso.vsix"


def eventually(condition: Callable[[], Value], what: str) -> Value:
    """Waits for a true value of `condition` and returns it; fails with `what` and the last value."""
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE_S:g} s; the last value was {value!r}"
        time.sleep(0.05)
    return value


class Browser:
    """A page in a headless Chromium, controlled through `browser.mjs`."""

    def __init__(self, tools: Tools) -> None:
        script = str(Path(__file__).with_name("browser.mjs"))
        command = [tools.node, script, tools.playwright, tools.chromium]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, action: str, *args: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": action, "args": args}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "the browser has exited"}')
        assert "error" not in answer, f"{action} {args}: {answer['error']}"
        return answer["value"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)


class VSCode:
    """A VS Code window with an open folder. settings: the machine settings."""

    def __init__(
        self, browser: Browser, server: psutil.Process, folder: Path, user: Path, settings: Mapping[str, Any]
    ) -> None:
        self.browser, self.server, self.folder, self.user, self.settings = browser, server, folder, user, settings

    def press(self, *keys: str) -> None:
        for key in keys:
            self.browser("press", key)

    def type(self, text: str, delay_ms: int = 60) -> None:
        self.browser("type", text, delay_ms)

    def command(self, title: str) -> None:
        """Runs a command by its title in the command palette."""
        self.press("F1")
        eventually(self.rows, "the command palette")
        self.type(title, 5)
        label = ".quick-input-widget .monaco-list-row[aria-label"
        row = f'{label}="{title}"], {label}^="{title}, "]'  # a key binding may follow the comma
        eventually(lambda: self.browser("count", row), f"the command {title}")
        self.browser("click", row)

    def rows(self, title: str = "") -> list[str]:
        """The entries of the open list if it has this title."""
        shown = self.browser("texts", ".quick-input-widget .quick-input-title")
        rows = self.browser("texts", ".quick-input-widget .monaco-list-row")
        return [_plain(row) for row in rows] if title in _plain("".join(shown)) else []

    def open(self, name: str, text: str, line: int = 1) -> None:
        """Writes a file, opens it, and moves the cursor to the end of the line, counted from 1."""
        (self.folder / name).write_text(text)

        def listed() -> bool:
            """Quick open searches the folder each time; the explorer may miss files made before it watches."""
            self.press("Escape", "Control+p")
            eventually(lambda: self.browser("count", ".quick-input-widget input:focus"), "the prompt for a file")
            self.type(name, 0)
            end = time.monotonic() + PATIENCE_S / 12
            while not (found := any(name in row for row in self.rows())) and time.monotonic() < end:
                time.sleep(0.05)
            return found

        eventually(listed, f"{name} in quick open")
        self.press("Enter")
        eventually(lambda: any(name in one for one in self.browser("texts", ".tab.active")), f"a tab for {name}")
        eventually(lambda: self.browser("count", ".monaco-editor.focused .view-line"), "lines")
        self.press("Control+g")
        eventually(lambda: self.browser("count", ".quick-input-widget input:focus"), "the prompt for a line number")
        self.type(f"{line}", 0)
        self.press("Enter")
        eventually(lambda: self.cursor()[:1] == [line], f"line {line}")
        self.press("End")
        eventually(lambda: self.cursor() == [line, len(text.split("\n")[line - 1]) + 1], "the end of the line")

    def close_editors(self) -> None:
        """Saves the active editor and closes all editors."""

        def closed() -> bool:
            self.press("Escape", "Escape", "Control+s", "Control+k", "Control+w")
            time.sleep(0.3)  # VS Code drops keys while it is busy, so they may have to be pressed again
            return not self.browser("count", ".tab")

        eventually(closed, "no editor is open")

    def cursor(self) -> list[int]:
        """Line and column of the cursor, counted from 1, from the status bar."""
        shown = "".join(self.browser("texts", "[id='status.editor.selection']"))
        return [int(number) for number in re.findall("[0-9]+", shown)]

    def lines(self) -> list[str]:
        """The visible lines including ghost text, in no particular order."""
        return [_plain(text) for text in self.browser("texts", ".view-lines .view-line")]

    def ghost(self) -> str:
        """The ghost text: the part in the cursor's line, and the lines below it."""
        inline = self.browser("texts", ".view-lines .ghost-text-decoration, .view-lines .ghost-text-decoration-preview")
        below = self.browser("texts", ".suggest-preview-text .view-line")
        return "\n".join(_plain(text) for text in ["".join(inline), *below])

    def after(self) -> str:
        """The text that decorations add."""
        contents = self.browser("after", ".view-lines .view-line span")
        return " ".join(_plain(one.strip('"')) for one in contents if one not in ("none", "normal"))

    def messages(self) -> str:
        """The visible notifications."""
        return " ".join(_plain(text) for text in self.browser("texts", ".notification-list-item"))

    def status(self) -> str:
        """The text of Gesso's status bar item."""
        return _plain("".join(self.browser("texts", "[id='gesso.gesso.gesso.status']")))

    def state(self) -> str:
        """The item's description for screen readers."""
        return "".join(self.browser("attributes", "[id='gesso.gesso.gesso.status'] a", "aria-label"))

    def saves(self, name: str, text: str) -> None:
        """Saves the active file and asserts that it has this text."""
        self.press("Control+s")
        end = time.monotonic() + PATIENCE_S
        while (written := (self.folder / name).read_text()) != text and time.monotonic() < end:
            time.sleep(0.05)
        assert written == text

    def servers(self) -> list[psutil.Process]:
        """The language servers that this VS Code runs."""
        found = []
        for process in self.server.children(recursive=True):
            try:
                if process.cmdline()[-2:] == ["-m", "lsp"]:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Replaces the machine settings."""
        self.settings = settings
        _write_settings(self.user / "Machine", settings)


@contextmanager
def vscode(tools: Tools, root: Path, settings: Mapping[str, Any]) -> Iterator[VSCode]:
    """VS Code with the extension and an empty folder. All its files are below `root`; `gesso-lsp` is not on its PATH.

    settings: the machine settings, because VS Code in a browser ignores user settings that name programs.
    """
    folder, user, extensions = root / "project", root / "user", root / "extensions"
    folder.mkdir(parents=True)
    _write_settings(user / "User", SETTINGS)
    _write_settings(user / "Machine", settings)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GESSO_", "VSCODE_"))}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_RUNTIME_DIR": runtime_folder()}
    environment |= {"GESSO_MODEL": "pocket"}  # so that no test gets the offer of another model
    folders = os.environ["PATH"].split(os.pathsep)
    environment["PATH"] = os.pathsep.join(one for one in folders if not (Path(one) / "gesso-lsp").exists())
    environment |= {f"XDG_{kind}_HOME": str(root / kind.lower()) for kind in ("CONFIG", "DATA", "STATE")}
    data = ["--user-data-dir", str(user), "--extensions-dir", str(extensions)]
    install = [tools.code_server, *data, "--install-extension", str(EXTENSION / "gesso.vsix")]
    done = subprocess.run(install, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    port = free_port()
    options = ["--auth", "none", "--bind-addr", f"127.0.0.1:{port}", "--disable-telemetry", "--disable-update-check"]
    options += ["--disable-workspace-trust", "--disable-getting-started-override"]
    with (root / "code-server.log").open("w") as log:
        command = [tools.code_server, *data, *options, str(folder)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    browser = Browser(tools)
    try:
        eventually(lambda: _listens(port), "code-server listens")
        browser("open", f"http://127.0.0.1:{port}/?folder={folder}")
        eventually(lambda: browser("count", ".monaco-workbench .statusbar"), "the workbench")
        yield VSCode(browser, psutil.Process(process.pid), folder, user, settings)
    finally:
        try:
            browser.close()
        finally:
            _end(psutil.Process(process.pid))


def _write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(dict(settings)))


def _end(process: psutil.Process) -> None:
    tree = [*process.children(recursive=True), process]
    for one in tree:
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    for one in psutil.wait_procs(tree, timeout=10)[1]:
        with suppress(psutil.NoSuchProcess):
            one.kill()


def _plain(text: str) -> str:
    """The text with ordinary spaces; VS Code draws no-break spaces."""
    return text.replace("\u00a0", " ").replace("\u200b", "")


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def with_server(root: Path, program: str, gate: Gate | None = None, **settings: Any) -> Iterator[VSCode]:
    """VS Code with the language server `tests/lsp/PROGRAM` for all languages, once that is ready. gate: what is slow
    waits there."""
    tools = find_tools()
    assert not isinstance(tools, str)
    build_extension(tools)
    environment = [f"{name}={value}" for name, value in gate.environment.items()] if gate is not None else []
    server = {"gesso.server.command": ["env", *environment, sys.executable, str(ROOT / "tests" / "lsp" / program)]}
    with vscode(tools, root, {**server, "gesso.languages": {"*": True}, **settings}) as opened:
        eventually(lambda: "Ready" in opened.state(), "the server is ready")
        yield opened
