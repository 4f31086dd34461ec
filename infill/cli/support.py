"""What the commands share: streams, exit codes, settings and the loading of a model.

Imports nothing slow by itself, so that `gesso --help` is quick. Must not know any single command.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from engine.errors import GessoError, UsageError
from infill.settings import Resolved, Settings, resolve

if TYPE_CHECKING:
    from infill.complete.completion import Completer

FILLED, NOTHING_TO_SHOW, BAD_USE, TROUBLE, INTERRUPTED = 0, 1, 2, 3, 130
Command = TypeVar("Command", bound=Callable[..., Any])


def errors_to_exit_codes(command: Command) -> Command:
    """A command whose errors become one sentence on standard error and an exit code."""

    @functools.wraps(command)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except GessoError as error:
            say(str(error))
            raise typer.Exit(BAD_USE if isinstance(error, UsageError) else TROUBLE) from error
        except KeyboardInterrupt as interrupt:
            say("Stopped.")
            raise typer.Exit(INTERRUPTED) from interrupt
        except MemoryError as error:
            say("The memory ran out; close other programs, or see `gesso doctor` for a model that fits.")
            raise typer.Exit(TROUBLE) from error
        except BrokenPipeError as gone:  # whoever read our output has enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FILLED) from gone
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":
                say("The device's memory ran out; close other programs, or see `gesso doctor` for what fits.")
                raise typer.Exit(TROUBLE) from error
            traceback.print_exc()
            say("This is a fault in Gesso, not in your file; please report it with the lines above.")
            raise typer.Exit(TROUBLE) from error

    return guarded  # type: ignore[return-value]


def errors_console() -> Console:
    """Standard error, where everything goes that is not the result."""
    return Console(stderr=True)


def say(sentence: str) -> None:
    """One line on standard error."""
    errors_console().print(f"gesso: {sentence}", markup=False, highlight=False, soft_wrap=True)


def write_out(text: str) -> None:
    """The result on standard output: exactly these characters as UTF-8; on a terminal a last line end is added."""
    if sys.stdout.isatty() and text and not text.endswith("\n"):
        text += "\n"
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()


def add_row(table: Table, *cells: str) -> None:
    """A row of a table with the cells as they are: brackets in them are no markup."""
    table.add_row(*(Text(cell) for cell in cells))


def read_settings(start: Path, flags: Mapping[str, Any] | None = None) -> Resolved:
    """Settings for work in the folder `start`; prints a notice for each old name of one."""
    resolved = resolve(flags or {}, start, os.environ)
    for notice in resolved.notices:
        say(notice)
    return resolved


def load_completer(settings: Settings) -> Completer:
    """The model that the settings name, loaded behind a progress bar."""
    from infill.complete.completion import Completer
    from infill.complete.loaded_model import LoadedModel

    with byte_progress() as progress:
        task = progress.add_task(f"loading {settings.model}", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return Completer(LoadedModel.load(settings, advance), settings)


def byte_progress() -> Progress:
    """A bar for bytes on standard error that leaves nothing behind, and is silent where that is no terminal."""
    console = errors_console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
