"""Options and arguments that the commands for one file share. Must not know any single command."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import UsageError
from infill.cli import text_edits
from infill.cli.support import STDIN, say, write_out
from infill.code import languages


def output_format(whole: bool, diff: bool, as_json: bool) -> str:
    """text, whole, diff or json. Raises UsageError."""
    chosen = [name for name, is_set in (("whole", whole), ("diff", diff), ("json", as_json)) if is_set]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} cannot be combined; choose one.")
    return chosen[0] if chosen else "text"


def real_path(path: Path) -> Path:
    """Without links; one that leads to itself stays."""
    return Path(os.path.realpath(path))


def short_name(path: Path) -> str:
    """The path relative to the working directory if the file is below it, otherwise the file name."""
    try:
        return real_path(path).relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name


def write_changed(source: text_edits.SourceFile, text: str, form: str) -> None:
    """Prints the file with its new text, in its own encoding. form: whole or diff."""
    if form == "whole":
        write_out(text, source.encode)
    else:
        write_out(source.diff(text, short_name(source.path)), source.encode_part)


def note_plain_text(source: text_edits.SourceFile, file: str, language: str | None) -> None:
    """Prints a notice if the language of standard input is not known."""
    if file == STDIN and language is None and not languages.detect(None, source.text.partition("\n")[0]):
        say("Treating standard input as plain text; use --lang to name a language.")
