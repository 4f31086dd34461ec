"""`gesso infill`: fills the holes of one file and prints or writes the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import InputError, UsageError
from engine.files import is_disk_full
from infill.cli import support as cli_support
from infill.cli import text_edits
from infill.cli.encodings import encoding_named
from infill.cli.holes import hole_at, hole_in_range, holes_at_markers, position_of
from infill.cli.live_view import SECONDS_PER_STEP, LiveView, export_svg, hole_progress
from infill.cli.options import note_plain_text, output_format, real_path, short_name, write_changed
from infill.cli.service import SERVICE_HELP, service_for
from infill.cli.support import FILLED, NOTHING_TO_SHOW, STDIN, errors_to_exit_codes, say
from infill.printable import json_text
from infill.request import Hole, HoleCompletion, InfillRequest, InfillResult, Neighbour, OnStep, Piece
from infill.settings import Settings

Complete = Callable[[InfillRequest, OnStep | None], InfillResult]
HELP = """Fill a hole in a file and print the text for it.

Standard output gets that text and nothing else. Reasons and the live
view go to standard error.

\b
gesso infill app.py --at 12:5                    at line 12, column 5
gesso infill app.py --at 12:5 --watch            show each denoising step
gesso infill app.py --at 12:1 --lines block      a whole block
gesso infill app.py --range 12:1-15:1 --diff     replace lines 12 to 14
gesso infill app.py --marker TODO --in-place     replace every TODO in the file
gesso infill - --lang python --at 3:5 < app.py   from standard input
gesso infill app.py --at 12:5 --json             all details as JSON

With several holes, the text for each starts on a new line. If nothing is
good enough for a hole, its old text stays and the exit code is 1.
"""


@dataclass(frozen=True)
class Output:
    """How to print the result, and what to print and write."""

    format: str  # text, whole, diff or json
    in_place: bool
    print_any: bool
    write_any: bool


@errors_to_exit_codes
def infill(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file; - reads standard input.")],
    at: Annotated[
        str | None, typer.Option(metavar="LINE:COL", help="The cursor position; both count from 1, COL in characters.")
    ] = None,
    range_: Annotated[
        str | None, typer.Option("--range", metavar="L:C-L:C", help="Replace the text up to the second position.")
    ] = None,
    marker: Annotated[str | None, typer.Option(metavar="TEXT", help="Replace every occurrence of this text.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Print the whole file with its holes filled.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Print a diff.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Write the result to the file.")] = False,
    any_: Annotated[
        bool, typer.Option("--any", help="Print the best candidate even if it is not good enough.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --in-place: write the best candidate even if it is not good enough.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show each denoising step.")] = False,
    watch_svg: Annotated[Path | None, typer.Option(hidden=True)] = None,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the file, such as latin-1; by default it is found out.")
    ] = None,
    lang: Annotated[
        str | None, typer.Option(metavar="LANGUAGE", help="python, go, … or text; by default from the file name.")
    ] = None,
    context: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Another file to use as context; repeatable.")
    ] = None,
    lines: Annotated[
        str | None, typer.Option(metavar="one|block|auto", help="How much to write; auto decides by the syntax.")
    ] = None,
    candidates: Annotated[int | None, typer.Option(metavar="N", help="Candidates per hole.")] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Maximum number of denoising steps.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Same seed, same text.")] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Return the best candidate found within this time.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="pocket, 26b, a hub ID or a folder.")] = None,
    service: Annotated[
        bool | None,
        typer.Option("--service/--no-service", help=SERVICE_HELP),
    ] = None,
) -> None:
    output = Output(output_format(whole, diff, as_json), in_place, any_, force)
    _check_options(file, output, (at, range_, marker))
    cli_support.check_paths([Path(file)])
    start = Path.cwd() if file == STDIN else real_path(Path(file)).parent
    flags = {
        "lines": lines,
        "candidates": candidates,
        "steps": steps,
        "seed": seed,
        "deadline_ms": deadline_ms,
        "model": model,
    }
    settings = cli_support.read_settings(start, flags).settings
    encoding = encoding_named(encoding) if encoding is not None else None
    source = text_edits.read_stdin(encoding) if file == STDIN else text_edits.read_source(Path(file), encoding)
    if source.notice is not None:
        say(source.notice)
    neighbours = tuple(Neighbour(short_name(path), text_edits.read_source(path).text) for path in context or ())
    request = _request(
        source, file, cli_support.language_named(lang), settings, _holes(source.text, at, range_, marker), neighbours
    )
    step_seconds = SECONDS_PER_STEP if settings.deadline_ms is None else 0.0
    view = LiveView(cli_support.errors_console(), step_seconds, show=watch)
    completer = service_for(settings, service) or cli_support.with_retry(cli_support.load_completer(settings), settings)
    if watch or watch_svg or len(request.holes) == 1:
        result = _complete(completer.complete, request, view if watch or watch_svg else None, watch_svg)
    else:
        with hole_progress(len(request.holes)) as on_step:
            result = completer.complete(request, on_step)
    raise typer.Exit(_write_result(source, result, output))


def _check_options(file: str, output: Output, positions: Sequence[str | None]) -> None:
    if sum(position is not None for position in positions) != 1:
        raise UsageError("Name the hole with exactly one of --at LINE:COL, --range L:C-L:C and --marker TEXT.")
    if output.in_place and file == STDIN:
        raise UsageError("Standard input cannot be written in place; use --whole to print the result.")
    if output.write_any and not output.in_place:
        raise UsageError("--force needs --in-place; use --any to print a candidate that is not good enough.")


def _holes(text: str, at: str | None, range_: str | None, marker: str | None) -> tuple[Hole, ...]:
    if at is not None:
        return (hole_at(text, at),)
    if range_ is not None:
        return (hole_in_range(text, range_),)
    return holes_at_markers(text, marker or "")


def _request(
    source: text_edits.SourceFile,
    file: str,
    language: str | None,
    settings: Settings,
    holes: tuple[Hole, ...],
    neighbours: tuple[Neighbour, ...],
) -> InfillRequest:
    note_plain_text(source, file, language)
    return InfillRequest(
        text=source.text,
        holes=holes,
        language=language,
        path=None if file == STDIN else short_name(source.path),
        lines=settings.lines,
        candidates=settings.candidates,
        steps=settings.steps,
        seed=settings.seed,
        deadline_ms=settings.deadline_ms,
        neighbours=neighbours,
    )


def _complete(complete: Complete, request: InfillRequest, view: LiveView | None, picture: Path | None) -> InfillResult:
    if view is None:
        return complete(request, None)
    with view:
        result = complete(request, view.step)
        pieces, caption = _final_pieces(request.text, result.completions), _caption(result)
        view.finish(pieces, caption)
    if picture is not None:
        try:
            export_svg(view.views, text_edits.real_path(picture, text_edits.named_tree(picture)), (pieces, caption))
        except OSError as error:
            remedy = "free disk space" if is_disk_full(error) else "name another file"
            raise InputError(f"{picture} cannot be written ({error.strerror}); {remedy}.") from error
    return result


def _final_pieces(text: str, completions: Sequence[HoleCompletion]) -> list[Piece]:
    """The text with the best candidate in each hole."""
    pieces, end = [], 0
    for completion in sorted(completions, key=lambda completion: completion.hole.start):
        pieces += [Piece(text[end : completion.hole.start], "known"), Piece(completion.text, "settled")]
        end = completion.hole.end
    return [*pieces, Piece(text[end:], "known")]


def _caption(result: InfillResult) -> str:
    reasons = [completion.reason for completion in result.completions if not completion.shown]
    outcome = "filled" if not reasons else f"not good enough to show: {reasons[0]}"
    return f"{outcome}, {result.steps} steps, {result.timings_ms.get('total', 0.0):.0f} ms"


def _write_result(source: text_edits.SourceFile, result: InfillResult, output: Output) -> int:
    """Prints the result, writes the file if requested, and returns the exit code."""
    shown = [completion for completion in result.completions if completion.shown]
    printed = result.completions if output.print_any else shown
    written = result.completions if output.write_any else shown
    if output.format == "json":
        cli_support.write_out(json_text(as_json_object(result, source.text)))
    elif printed and output.format != "text":
        write_changed(source, _filled(source.text, printed), output.format)
    elif printed and not output.in_place:
        cli_support.write_out(_printed(printed, several=len(result.completions) > 1))
    if output.in_place and written:
        text_edits.write_in_place(source, _filled(source.text, written), text_edits.named_tree(source.path))
        say(f"{source.path}: filled {len(written)} of {len(result.completions)} holes.")
    if output.format != "json":
        _report_reasons(source.text, result.completions)
        _report_candidates(result)
    return FILLED if len(shown) == len(result.completions) else NOTHING_TO_SHOW


def _filled(text: str, completions: Sequence[HoleCompletion]) -> str:
    return text_edits.apply(text, [(completion.hole, completion.text) for completion in completions])


def _printed(completions: Sequence[HoleCompletion], several: bool) -> str:
    if several:
        texts = [completion.text for completion in completions]
        return "".join(text if text.endswith("\n") else text + "\n" for text in texts)
    return completions[0].text


def _report_reasons(text: str, completions: Sequence[HoleCompletion]) -> None:
    for completion in completions:
        if not completion.shown:
            position = f" at {position_of(text, completion.hole.start)}" if len(completions) > 1 else ""
            say(f"nothing good enough to show{position}: {completion.reason or 'no candidate'}")


def _report_candidates(result: InfillResult) -> None:
    """Lists the candidates of a single hole if several were requested."""
    if len(result.completions) == 1 and len(result.completions[0].candidates) > 1:
        for number, candidate in enumerate(result.completions[0].candidates, start=1):
            verdict = "shown" if candidate.shown else f"not shown: {candidate.reason}"
            say(f"candidate {number} ({candidate.source}, {candidate.confidence:.2f}, {verdict}): {candidate.text!r}")


def as_json_object(result: InfillResult, text: str) -> dict[str, Any]:
    """The object of --json: the values of the first hole and, with several holes, a list `holes` of all.

    `tokens` counts the tokens of the best candidate; `reason` is null if it is shown.
    """
    first = _hole_object(result.completions[0])
    run = {
        "steps": result.steps,
        "prompt_tokens": result.prompt_tokens,
        "encoded_tokens": result.encoded_tokens,
        "canvas": result.canvas,
        "hole": result.hole,
        "timings_ms": {stage: round(spent, 2) for stage, spent in result.timings_ms.items()},
        "model": result.model,
        "seed": result.seed,
    }
    if len(result.completions) == 1:
        return first | run
    each = [
        {"at": position_of(text, completion.hole.start)} | _hole_object(completion) for completion in result.completions
    ]
    return first | run | {"holes": each}


def _hole_object(completion: HoleCompletion) -> dict[str, Any]:
    return {
        "text": completion.text,
        "shown": completion.shown,
        "reason": completion.reason,
        "confidence": completion.confidence,
        "candidates": [
            {name: value for name, value in asdict(candidate).items() if name not in ("evidence", "refused")}
            for candidate in completion.candidates
        ],
        "tokens": completion.candidates[0].tokens if completion.candidates else 0,
    }
