"""Options and arguments that the commands for one file share. Must not know any single command."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.errors import UsageError
from infill.cli import text_edits
from infill.cli.support import say
from infill.code import languages

STDIN = "-"
PLAIN_TEXT = "text"


def output_format(whole: bool, diff: bool, as_json: bool) -> str:
    """text, whole, diff or json. Raises UsageError."""
    chosen = [name for name, is_set in (("whole", whole), ("diff", diff), ("json", as_json)) if is_set]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} cannot be combined; choose one.")
    return chosen[0] if chosen else "text"


def language_id(name: str | None) -> str | None:
    """The ID of a language, given its ID or one of its file extensions; None for None. Raises UsageError."""
    if name is None or name == PLAIN_TEXT or name in languages.LANGUAGES:
        return name
    language = languages.detect(f"file.{name}")
    if language is None:
        known = ", ".join([*languages.LANGUAGES, PLAIN_TEXT])
        raise UsageError(f"There is no language {name!r}; use one of {known}.")
    return language


def read_stdin() -> text_edits.SourceFile:
    content = sys.stdin.buffer.read()
    return text_edits.SourceFile(Path("stdin"), text_edits.decode(content, "Standard input"), content)


def short_name(path: Path) -> str:
    """The path relative to the working directory if the file is below it, otherwise the file name."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name


def note_plain_text(source: text_edits.SourceFile, file: str, language: str | None) -> None:
    """Prints a notice if the language of standard input is not known."""
    if file == STDIN and language is None and not languages.detect(None, source.text.partition("\n")[0]):
        say("Treating standard input as plain text; use --lang to name a language.")
