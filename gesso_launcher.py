"""Starts Gesso's commands with Gesso's own packages first on the import path.

A folder on PYTHONPATH may hold modules named `engine`, `infill` or `lsp`, or other versions of the libraries that Gesso
uses. The commands `gesso` and `gesso-lsp`, and every process they start, begin here, in a module whose name no project
is likely to use. Run as a script it is `gesso`. Must not import anything that Python has not imported already before
the path is in order.
"""

import _signal  # type: ignore[import-not-found]  # built in, unlike signal
import os
import sys

INTERRUPTED = 130  # exit code


def gesso() -> None:
    """The command line."""
    _run("infill.cli.main")


def language_server() -> None:
    """The language server."""
    _run("lsp.__main__")


def _run(module: str) -> None:
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _end_interrupted)  # until `prepared` has one that lets commands clean up
    has_folder = _has_working_folder()
    if not has_folder:
        os.chdir("/")  # libraries ask for the working directory too
    sys.path[:] = _ordered(sys.path, os.environ.get("PYTHONPATH", ""))
    from infill.surroundings import prepared

    with prepared(has_folder):
        import importlib

        sys.exit(importlib.import_module(module).main())


def _end_interrupted(*_: object) -> None:
    try:
        os.write(2, b"gesso: Stopped.\n")
    finally:
        os._exit(INTERRUPTED)


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _ordered(path: list[str], python_path: str) -> list[str]:
    """The folder of this file, then the interpreter's own folders, then those of PYTHONPATH."""
    own = os.path.dirname(__file__)
    entries = python_path.split(os.pathsep) if python_path else []
    foreign = {os.path.abspath(entry) for entry in entries} - {own}  # an empty entry is the working directory
    later = [entry for entry in path if os.path.abspath(entry) in foreign]
    return [own, *(entry for entry in path if entry not in later and entry != own), *later]


if __name__ == "__main__":
    gesso()
