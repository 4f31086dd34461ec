"""Starts Gesso's commands with Gesso's own packages first on the import path.

A folder on PYTHONPATH may hold modules named `engine`, `infill` or `lsp`, or other versions of the libraries that Gesso
uses. The commands `gesso` and `gesso-lsp`, and every process they start, begin here, in a module whose name no project
is likely to use. Run as a script it is `gesso`. Must not import anything of Gesso before the path is in order.
"""

import importlib
import os
import sys
from typing import NoReturn


def gesso() -> NoReturn:
    """The command line."""
    _run("infill.cli.main")


def language_server() -> NoReturn:
    """The language server."""
    _run("lsp.__main__")


def _run(module: str) -> NoReturn:
    try:
        os.getcwd()
    except FileNotFoundError:  # the working directory was deleted, and libraries ask for it too
        os.chdir("/")
    sys.path[:] = _ordered(sys.path, os.environ.get("PYTHONPATH", ""))
    sys.exit(importlib.import_module(module).main())


def _ordered(path: list[str], python_path: str) -> list[str]:
    """The folder of this file, then the interpreter's own folders, then those of PYTHONPATH."""
    own = os.path.dirname(__file__)
    foreign = {os.path.abspath(entry) for entry in python_path.split(os.pathsep) if entry} - {own}
    later = [entry for entry in path if os.path.abspath(entry) in foreign]
    return [own, *(entry for entry in path if entry not in later and entry != own), *later]


if __name__ == "__main__":
    gesso()
