"""`gesso edit`: rewrites a range of one file as an instruction says, and prints or writes the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import InputError, UsageError
from infill.cli import support as cli_support
from infill.cli import text_edits
from infill.cli.encodings import encoding_named
from infill.cli.holes import hole_in_range, position_of
from infill.cli.live_view import LiveView
from infill.cli.options import note_plain_text, output_format, real_path, short_name, write_changed
from infill.cli.service import SERVICE_HELP, service_for
from infill.cli.support import FILLED, NOTHING_TO_SHOW, STDIN, errors_to_exit_codes, say
from infill.edit_request import EditRequest, EditResult
from infill.instructions import cannot_rewrite
from infill.model_store import concrete, resolve
from infill.printable import json_text
from infill.request import Hole, Neighbour, OnStep, Piece
from infill.settings import Settings

Rewrite = Callable[[EditRequest, OnStep | None], EditResult]
HELP = """Rewrite a range of a file as an instruction says, and print the new text.

Standard output gets that text and nothing else. Needs a model that follows
instructions, such as coder.

\b
gesso edit app.py --range 12:1-20:1 "return early when empty" --diff
gesso edit app.py --range 12:1-20:1 "use pathlib" --in-place
gesso edit - --lang python --range 3:1-5:1 "add type hints" < app.py

If no answer is good enough, the exit code is 1 and nothing is written.
"""


@errors_to_exit_codes
def edit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file; - reads standard input.")],
    instruction: Annotated[str, typer.Argument(metavar="INSTRUCTION", help="What to change, in words.")],
    range_: Annotated[
        str, typer.Option("--range", metavar="L:C-L:C", help="What to rewrite, up to the second position.")
    ],
    whole: Annotated[bool, typer.Option("--whole", help="Print the whole file with the change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Print a diff.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Write the result to the file.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show the new text while it is written.")] = False,
    lang: Annotated[
        str | None, typer.Option(metavar="LANGUAGE", help="python, go, … or text; by default from the file name.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the file, such as latin-1; by default it is found out.")
    ] = None,
    context: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Another file to use as context; repeatable.")
    ] = None,
    candidates: Annotated[int | None, typer.Option(metavar="N", help="Number of answers.")] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Give up if there is no answer within this time.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="coder, coder-1.5b, a folder or a file.")] = None,
    service: Annotated[bool | None, typer.Option("--service/--no-service", help=SERVICE_HELP)] = None,
) -> None:
    form = output_format(whole, diff, as_json)
    if in_place and file == STDIN:
        raise UsageError("Standard input cannot be written in place; use --whole to print the result.")
    if not instruction.strip():
        raise UsageError("The instruction is empty; say what to change.")
    cli_support.check_paths([Path(file)])
    start = Path.cwd() if file == STDIN else real_path(Path(file)).parent
    flags = {"candidates": candidates, "deadline_ms": deadline_ms, "model": model}
    settings = cli_support.read_settings(start, flags).settings
    encoding = encoding_named(encoding) if encoding is not None else None
    source = text_edits.read_stdin(encoding) if file == STDIN else text_edits.read_source(Path(file), encoding)
    if source.notice is not None:
        say(source.notice)
    language = cli_support.language_named(lang)
    note_plain_text(source, file, language)
    hole = hole_in_range(source.text, range_)
    request = EditRequest(
        source.text,
        hole.start,
        hole.end,
        instruction,
        language=language,
        path=None if file == STDIN else short_name(source.path),
        candidates=settings.candidates,
        deadline_ms=settings.deadline_ms,
        neighbours=tuple(Neighbour(short_name(path), text_edits.read_source(path).text) for path in context or ()),
    )
    result = _rewrite(rewriter_for(settings, service), request, watch)
    raise typer.Exit(_write_result(source, result, form, in_place))


def rewriter_for(settings: Settings, service: bool | None) -> Rewrite:
    """The service, or the model of the settings loaded in this process. Raises InputError if that cannot rewrite."""
    if (client := service_for(settings, service)) is not None:
        return client.edit
    from infill.complete.code_model import is_code_model
    from infill.edit.rewriter import Rewriter

    if not is_code_model(resolve(concrete(settings.model))):  # before it is loaded
        raise InputError(cannot_rewrite(concrete(settings.model)))
    return Rewriter(cli_support.load_completer(settings).model).rewrite


def _rewrite(rewrite: Rewrite, request: EditRequest, watch: bool) -> EditResult:
    if not watch:
        return rewrite(request, None)
    with LiveView(cli_support.errors_console(), 0.0) as view:
        result = rewrite(request, view.step)
        new = Piece(result.text, "settled")
        pieces = [Piece(request.text[: result.start], "known"), new, Piece(request.text[result.end :], "known")]
        view.finish(pieces, result.reason or f"rewritten, {result.timings_ms.get('total', 0.0):.0f} ms")
    return result


def _write_result(source: text_edits.SourceFile, result: EditResult, form: str, in_place: bool) -> int:
    """Prints the result, writes the file if requested, and returns the exit code."""
    changed = text_edits.apply(source.text, [(Hole(result.start, result.end), result.text)])
    if form == "json":
        cli_support.write_out(json_text(as_json_object(result, source.text)))
    elif result.shown and form != "text":
        write_changed(source, changed, form)
    elif result.shown and not in_place:
        cli_support.write_out(result.text)
    if result.shown and in_place:
        text_edits.write_in_place(source, changed, text_edits.named_tree(source.path))
        say(f"{source.path}: rewritten at {position_of(source.text, result.start)}.")
    if form != "json":
        if not result.shown:
            say(f"nothing good enough to show: {result.reason}")
        if len(result.candidates) > 1:
            for number, candidate in enumerate(result.candidates, start=1):
                verdict = "shown" if candidate.shown else f"not shown: {candidate.reason}"
                say(f"candidate {number} ({verdict}): {candidate.text!r}")
    return FILLED if result.shown else NOTHING_TO_SHOW


def as_json_object(result: EditResult, text: str) -> dict[str, Any]:
    """The object of --json. range: `L:C-L:C` of the text that `text` replaces."""
    value = asdict(result)
    range_ = f"{position_of(text, value.pop('start'))}-{position_of(text, value.pop('end'))}"
    timings = {stage: round(spent, 2) for stage, spent in result.timings_ms.items()}
    return value | {"range": range_, "timings_ms": timings}
