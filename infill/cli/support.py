"""Shared by the commands: output streams, exit codes, settings, loading a model.

Imports nothing slow, so that `gesso --help` is fast. Must not know any single command.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from engine.errors import GessoError, UsageError, is_memory_error
from infill.printable import one_line, printable, visible
from infill.settings import Resolved, Settings, resolve

if TYPE_CHECKING:
    from infill.complete.pipeline import AnyCompleter
    from infill.complete.retry import RetryCompleter

FILLED, NOTHING_TO_SHOW, BAD_USE, TROUBLE, INTERRUPTED = 0, 1, 2, 3, 130
Command = TypeVar("Command", bound=Callable[..., Any])


def errors_to_exit_codes(command: Command) -> Command:
    """Decorates a command so that an error becomes one sentence on standard error and an exit code."""

    @functools.wraps(command)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except GessoError as error:
            say(str(error))
            raise typer.Exit(BAD_USE if isinstance(error, UsageError) else TROUBLE) from error
        except KeyboardInterrupt as error:
            say("Stopped.")
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:  # the reader of our output has exited, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FILLED) from error
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if is_memory_error(error):
                say("Out of memory; close other programs, or run `gesso doctor` to see which models fit.")
            else:
                sys.stderr.write(printable(traceback.format_exc()))
                say("This is a bug in Gesso, not in your file; please report it with the traceback above.")
            raise typer.Exit(TROUBLE) from error

    return guarded  # type: ignore[return-value]


class VisibleConsole(Console):
    """A console that shows a symbol for each control character of what it prints."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def errors_console() -> Console:
    """A console on standard error, for everything but the result."""
    return VisibleConsole(stderr=True)


def say(sentence: str) -> None:
    """Prints one line to standard error."""
    line = printable(f"gesso: {one_line(sentence)}")
    errors_console().print(line, markup=False, highlight=False, soft_wrap=True)


def write_out(text: str) -> None:
    """Writes the result to standard output as UTF-8, unchanged except on a terminal: there it is made visible and gets
    a final line end."""
    if sys.stdout.isatty() and text:
        text = visible(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()


def add_row(table: Table, *cells: str) -> None:
    """Adds a row of plain text: brackets in the cells are not markup."""
    table.add_row(*(Text(one_line(cell)) for cell in cells))


def read_settings(start: Path, flags: Mapping[str, Any] | None = None) -> Resolved:
    """Settings for files in the folder `start`. Prints a notice for each renamed or removed setting."""
    resolved = resolve(flags or {}, start, os.environ)
    for notice in resolved.notices:
        say(notice)
    return resolved


def load_completer(settings: Settings) -> AnyCompleter:
    """Loads the model of the settings, with a progress bar."""
    from infill.complete.pipeline import load_model, make_completer

    with byte_progress() as progress:
        task = progress.add_task(f"loading {settings.model}", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return make_completer(load_model(settings, advance), settings)


def with_retry(completer: AnyCompleter, settings: Settings) -> AnyCompleter | RetryCompleter:
    """The completer, which asks the retry model of the settings, if any. That model is loaded when it is first needed;
    if it cannot be loaded, a sentence says so, and nothing is retried."""
    if settings.retry_model in (None, settings.model):
        return completer
    from infill.complete.pipeline import load_model, make_completer
    from infill.complete.retry import RetryCompleter

    retry_settings = replace(settings, model=settings.retry_model)

    def load() -> AnyCompleter | None:
        try:
            return make_completer(load_model(retry_settings), retry_settings)
        except GessoError as error:
            say(f"Nothing is retried: {error}")
            return None

    return RetryCompleter(completer, load)


def byte_progress() -> Progress:
    """A progress bar in bytes on standard error. It disappears at the end, and is off if that is not a terminal."""
    console = errors_console()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
