"""Shared by the commands: output streams, exit codes, settings, loading a model.

Imports nothing slow, so that `gesso --help` is fast. Must not know any single command.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from engine.errors import GessoError, InputError, UsageError, is_memory_error
from infill.code import languages
from infill.printable import plain, printable, visible
from infill.settings import Resolved, Settings, resolve
from infill.surroundings import INTERRUPTED, has_working_folder, interrupt_is_reported, was_interrupted

if TYPE_CHECKING:
    from infill.complete.pipeline import AnyCompleter
    from infill.complete.retry import RetryCompleter

FILLED, NOTHING_TO_SHOW, BAD_USE, TROUBLE = 0, 1, 2, 3
STDIN, PLAIN_TEXT = "-", "text"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
Command = TypeVar("Command", bound=Callable[..., Any])


class OutputError(GessoError):
    """Standard output cannot be written."""


def errors_to_exit_codes(command: Command) -> Command:
    """Decorates a command so that an error becomes one sentence on standard error and an exit code."""

    @functools.wraps(command)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            check_paths(options.values())
            return command(*arguments, **options)
        except (typer.Exit, typer.Abort):
            raise
        except BaseException as error:
            raise typer.Exit(report(error)) from error

    return guarded  # type: ignore[return-value]


def report(error: BaseException) -> int:
    """Prints one sentence about the error, and returns its exit code. A bug has a traceback too."""
    if was_interrupted() or isinstance(error, KeyboardInterrupt):
        say("Stopped.")
        interrupt_is_reported()
        return INTERRUPTED
    if isinstance(error, GessoError):
        say(str(error))
        return BAD_USE if isinstance(error, UsageError) else TROUBLE
    if isinstance(error, BrokenPipeError):  # the reader of our output has exited, as `head` does
        _discard(sys.stdout)
        return FILLED
    if isinstance(error, OSError) and (sentence := _system_error(error)) is not None:
        say(sentence)
    elif is_memory_error(error):
        say("Out of memory; close other programs, or run `gesso doctor` to see which models fit.")
    elif not isinstance(error, Exception):
        raise error
    else:
        with suppress(OSError):
            sys.stderr.write(printable("".join(traceback.format_exception(error))))
        say("This is a bug in Gesso, not in your file; please report it with the traceback above.")
    return TROUBLE


def _system_error(error: OSError) -> str | None:
    """A sentence for an error of the file system; None if it may be a bug."""
    if error.filename is not None:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename
        return f"{name} cannot be used ({error.strerror}); check its permissions and the free disk space."
    if error.errno in DISK_ERRORS:
        return f"A file cannot be written ({error.strerror}); free disk space and run the command again."
    return None


def _discard(stream: TextIO) -> None:
    """Sends what is written to the stream, and what it could not write, nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def writing_output(writes_files: bool = False) -> Iterator[None]:
    """Raises OutputError if standard output cannot be written, or BrokenPipeError if its reader has exited.

    writes_files: whether an OSError may be about another file.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if writes_files and _can_be_flushed(sys.stdout):
            raise
        _discard(sys.stdout)
        if error.errno == errno.EBADF:
            raise OutputError("Standard output is closed; redirect it to a file.") from error
        raise OutputError(
            f"Standard output cannot be written ({error.strerror}); free disk space, or redirect it to another file."
        ) from error


def _can_be_flushed(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return False
    return True


def check_paths(values: Iterable[object]) -> None:
    """Raises InputError if a value, or one in a list of values, is a path in a working folder that was deleted."""
    if has_working_folder():
        return
    for value in values:
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and not path.is_absolute() and path != Path(STDIN):
                raise InputError(f"The working folder was deleted, so {path} is not found; change to another folder.")


class Commands(typer.Typer):
    """A group of commands whose help shows flags without a type."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            cls=_Group,
            context_settings={"help_option_names": ["-h", "--help"]},
            pretty_exceptions_enable=False,
            rich_markup_mode=None,  # help is plain text: rich drops what is in square brackets
            **options,
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[[Command], Command]:
        return super().command(name, cls=_Command, **options)


class _Command(TyperCommand):
    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _ends_with_reader():
            return super().make_context(*arguments, **options)

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _ends_with_reader():
            return super().make_context(*arguments, **options)

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        return _without_types(super().get_params(ctx))


@contextmanager
def _ends_with_reader() -> Iterator[None]:
    """Around the parsing of options, which prints the help: typer would exit with code 1 if its reader has exited."""
    try:
        yield
    except BrokenPipeError as error:
        raise typer.Exit(report(error)) from error


def _without_types(parameters: list[Any]) -> list[Any]:
    """The parameters; flags have no type, since they take no value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class VisibleConsole(Console):
    """A console that shows a symbol for each control character of what it prints."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Leaves the error to `report`; the console of rich would exit with code 1."""
        raise BrokenPipeError

    def print(self, *objects: Any, **options: Any) -> None:
        """Raises OutputError if this is a console on standard output that cannot be written."""
        with nullcontext() if self.stderr else writing_output():
            super().print(*objects, **options)


def errors_console() -> Console:
    """A console on standard error, for everything but the result."""
    return VisibleConsole(stderr=True)


def say(sentence: str) -> None:
    """Prints one line to standard error, unless that is closed or its disk is full."""
    line = plain(f"gesso: {sentence}")
    try:
        errors_console().print(line, markup=False, highlight=False, soft_wrap=True)
    except OSError:
        _discard(sys.stderr)


def write_out(text: str, encode: Callable[[str], bytes] = str.encode) -> None:
    """Writes the result to standard output, by default as UTF-8, unchanged. On a terminal it is made visible, gets a
    final line end, and is always UTF-8."""
    if sys.stdout.isatty() and text:
        text, encode = visible(text if text.endswith("\n") else text + "\n"), str.encode
    content = encode(text.encode("utf-8", "replace").decode())
    with writing_output():
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def add_row(table: Table, *cells: str) -> None:
    """Adds a row of plain text: brackets in the cells are not markup, and no part is left out on a narrow terminal."""
    table.add_row(*(Text(plain(cell), overflow="fold") for cell in cells))


def read_settings(start: Path, flags: Mapping[str, Any] | None = None) -> Resolved:
    """Settings for files in the folder `start`. Prints a notice for each renamed or removed setting."""
    resolved = resolve(flags or {}, start, os.environ)
    for notice in resolved.notices:
        say(notice)
    return resolved


def language_named(name: str | None) -> str | None:
    """The ID of a language, given its ID or one of its file extensions. Raises UsageError."""
    if name is None or name == PLAIN_TEXT or name in languages.LANGUAGES:
        return name
    language = languages.detect(f"file.{name}")
    if language is None:
        known = ", ".join([*languages.LANGUAGES, PLAIN_TEXT])
        raise UsageError(f"There is no language {name!r}; use one of {known}.")
    return language


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
