"""`gesso infill`: one file, its holes, and the text for them in the form that was asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import UsageError
from infill.cli import holes
from infill.cli import support as cli_support
from infill.cli import text_edits as edit
from infill.cli.live_view import SECONDS_A_STEP, LiveView, export_svg
from infill.cli.service import SERVICE_HELP, service_for
from infill.cli.support import FILLED, NOTHING_TO_SHOW, errors_to_exit_codes, say
from infill.code import languages
from infill.request import Hole, HoleCompletion, InfillRequest, InfillResult, Neighbour, OnStep, Piece
from infill.settings import Settings

Complete = Callable[[InfillRequest, OnStep | None], InfillResult]
STDIN = "-"
PLAIN_TEXT = "text"
HELP = """Fill a hole in a file and print the text for it.

Nothing but that text goes to standard output. Reasons, the live view
and all else go to standard error.

\b
gesso infill app.py --at 12:5                    at line 12, column 5
gesso infill app.py --at 12:5 --watch            see the canvas settle
gesso infill app.py --at 12:1 --lines block      a whole block
gesso infill app.py --range 12:1-15:1 --diff     lines 12 to 14 anew
gesso infill app.py --marker TODO --in-place     every TODO, in the file
gesso infill - --lang python --at 3:5 < app.py   from standard input
gesso infill app.py --at 12:5 --json             all that is known

With several holes their texts follow each other, each on lines of its
own. A hole for which nothing is good enough keeps what stands there, and
the exit code is 1.
"""


@dataclass(frozen=True)
class Output:
    """What becomes of the result: how it is printed, whether it is written, and how much is good enough."""

    form: str  # text, whole, diff or json
    in_place: bool
    print_any: bool
    write_any: bool


@errors_to_exit_codes
def infill(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file; - reads standard input.")],
    at: Annotated[
        str | None, typer.Option(metavar="LINE:COL", help="The cursor; both from 1, COL in characters.")
    ] = None,
    range_: Annotated[
        str | None, typer.Option("--range", metavar="L:C-L:C", help="Write this anew, up to the second place.")
    ] = None,
    marker: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Replace this text wherever it stands in the file.")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Print the whole file, filled.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Print a diff.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Write the file, all at once.")] = False,
    any_: Annotated[
        bool, typer.Option("--any", help="Print the best candidate even if it is not good enough.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --in-place: write even what is not good enough.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show the canvas settle, step by step.")] = False,
    watch_svg: Annotated[Path | None, typer.Option(hidden=True)] = None,
    lang: Annotated[
        str | None, typer.Option(metavar="LANGUAGE", help="python, go, … or text, where the name does not tell.")
    ] = None,
    context: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Another file whose names may be of use; repeatable.")
    ] = None,
    lines: Annotated[
        str | None, typer.Option(metavar="one|block|auto", help="How much to write; auto asks the syntax.")
    ] = None,
    candidates: Annotated[int | None, typer.Option(metavar="N", help="Suggestions to make for a hole.")] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Most denoising steps.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Same seed, same text.")] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Return the best so far after this time.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="pocket, 26b, a hub id or a folder.")] = None,
    service: Annotated[
        bool | None,
        typer.Option("--service/--no-service", help=SERVICE_HELP),
    ] = None,
) -> None:
    output = Output(_form(whole, diff, as_json), in_place, any_, force)
    _check_use(file, output, (at, range_, marker))
    start = Path.cwd() if file == STDIN else Path(file).resolve().parent
    flags = {
        "lines": lines,
        "candidates": candidates,
        "steps": steps,
        "seed": seed,
        "deadline_ms": deadline_ms,
        "model": model,
    }
    settings = cli_support.read_settings(start, flags).settings
    source = _read_stdin() if file == STDIN else edit.read_source(Path(file))
    neighbours = tuple(Neighbour(str(path), edit.read_source(path).text) for path in context or ())
    request = _request(source, file, _language(lang), settings, _holes(source.text, at, range_, marker), neighbours)
    pace = SECONDS_A_STEP if settings.deadline_ms is None else 0.0
    view = LiveView(cli_support.errors_console(), pace, show=watch)
    completes = _completes(settings, service)
    result = _complete(completes, request, view if watch or watch_svg else None, watch_svg)
    raise typer.Exit(_hand_over(source, result, output))


def _form(whole: bool, diff: bool, as_json: bool) -> str:
    chosen = [name for name, wanted in (("whole", whole), ("diff", diff), ("json", as_json)) if wanted]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} do not go together; choose what to print.")
    return chosen[0] if chosen else "text"


def _check_use(file: str, output: Output, places: Sequence[str | None]) -> None:
    if sum(place is not None for place in places) != 1:
        raise UsageError("Say where to fill with one of --at LINE:COL, --range L:C-L:C or --marker TEXT.")
    if output.in_place and file == STDIN:
        raise UsageError("Standard input cannot be written in place; use --whole to print the result.")
    if output.write_any and not output.in_place:
        raise UsageError("--force goes with --in-place; to print what is not good enough use --any.")


def _language(name: str | None) -> str | None:
    """A language's id from its id or one of its file extensions; raises UsageError for anything else."""
    if name is None or name == PLAIN_TEXT or name in languages.LANGUAGES:
        return name
    found = languages.detect(f"file.{name}")
    if found is None:
        known = ", ".join([*languages.LANGUAGES, PLAIN_TEXT])
        raise UsageError(f"There is no language {name!r}; use one of {known}.")
    return found


def _read_stdin() -> edit.SourceFile:
    content = sys.stdin.buffer.read()
    return edit.SourceFile(Path("stdin"), edit.decode(content, "Standard input"), content)


def _holes(text: str, at: str | None, range_: str | None, marker: str | None) -> tuple[Hole, ...]:
    if at is not None:
        return (holes.hole_at(text, at),)
    if range_ is not None:
        return (holes.hole_in_range(text, range_),)
    return holes.holes_at_markers(text, marker or "")


def _request(
    source: edit.SourceFile,
    file: str,
    language: str | None,
    settings: Settings,
    where: tuple[Hole, ...],
    neighbours: tuple[Neighbour, ...],
) -> InfillRequest:
    if file == STDIN and language is None and not languages.detect(None, source.text.partition("\n")[0]):
        say("No --lang was given; standard input is taken as plain text.")
    return InfillRequest(
        text=source.text,
        holes=where,
        language=language,
        path=None if file == STDIN else _short_name(source.path),
        lines=settings.lines,
        candidates=settings.candidates,
        steps=settings.steps,
        seed=settings.seed,
        deadline_ms=settings.deadline_ms,
        neighbours=neighbours,
    )


def _short_name(path: Path) -> str:
    """From the working folder where the file is below it, otherwise the name alone."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name


def _completes(settings: Settings, service: bool | None) -> Complete:
    """Where the request is answered: by the service where one runs with this model, started where `service` is True;
    otherwise, and where it is False, by the model loaded here."""
    found = service_for(settings, service)
    return found.complete if found is not None else cli_support.load_completer(settings).complete


def _complete(complete: Complete, request: InfillRequest, view: LiveView | None, picture: Path | None) -> InfillResult:
    if view is None:
        return complete(request, None)
    with view:
        result = complete(request, view.step)
        pieces, caption = _final_pieces(request.text, result.completions), _caption(result)
        view.finish(pieces, caption)
    if picture is not None:
        export_svg(view.views, picture, (pieces, caption))
    return result


def _final_pieces(text: str, completions: Sequence[HoleCompletion]) -> list[Piece]:
    """The file with the best candidates in it."""
    pieces, at = [], 0
    for completion in sorted(completions, key=lambda one: one.hole.start):
        pieces += [Piece(text[at : completion.hole.start], "known"), Piece(completion.text, "settled")]
        at = completion.hole.end
    return [*pieces, Piece(text[at:], "known")]


def _caption(result: InfillResult) -> str:
    reasons = [completion.reason for completion in result.completions if not completion.shown]
    outcome = "filled" if not reasons else f"not good enough to show: {reasons[0]}"
    return f"{outcome}, {result.steps} steps, {result.timings_ms.get('total', 0.0):.0f} ms"


def _hand_over(source: edit.SourceFile, result: InfillResult, output: Output) -> int:
    """Prints and writes; returns the exit code."""
    shown = [completion for completion in result.completions if completion.shown]
    printed = result.completions if output.print_any else shown
    written = result.completions if output.write_any else shown
    if output.form == "json":
        cli_support.write_out(json.dumps(as_json_object(result, source.text), ensure_ascii=False) + "\n")
    elif printed:
        cli_support.write_out(_printed(source, printed, output, several=len(result.completions) > 1))
    if output.in_place and written:
        edit.write_in_place(source, _filled(source.text, written))
        say(f"{source.path}: {len(written)} of {len(result.completions)} holes were filled.")
    if output.form != "json":
        _tell_reasons(source.text, result.completions)
        _tell_others(result)
    return FILLED if len(shown) == len(result.completions) else NOTHING_TO_SHOW


def _filled(text: str, completions: Sequence[HoleCompletion]) -> str:
    return edit.apply(text, [(completion.hole, completion.text) for completion in completions])


def _printed(source: edit.SourceFile, completions: Sequence[HoleCompletion], output: Output, several: bool) -> str:
    if output.form == "whole":
        return _filled(source.text, completions)
    if output.form == "diff":
        return edit.unified_diff(source.text, _filled(source.text, completions), _short_name(source.path))
    if output.in_place:
        return ""
    if several:
        return "".join(one.text if one.text.endswith("\n") else one.text + "\n" for one in completions)
    return completions[0].text


def _tell_reasons(text: str, completions: Sequence[HoleCompletion]) -> None:
    for completion in completions:
        if not completion.shown:
            where = f" at {holes.place_of(text, completion.hole.start)}" if len(completions) > 1 else ""
            say(f"nothing good enough to show{where}: {completion.reason or 'no candidate'}")


def _tell_others(result: InfillResult) -> None:
    """The other candidates of a single hole, where several were asked for."""
    if len(result.completions) == 1 and len(result.completions[0].candidates) > 1:
        for number, candidate in enumerate(result.completions[0].candidates, start=1):
            verdict = "shown" if candidate.shown else f"not shown: {candidate.reason}"
            say(f"candidate {number} ({candidate.source}, {candidate.confidence:.2f}, {verdict}): {candidate.text!r}")


def as_json_object(result: InfillResult, text: str) -> dict[str, Any]:
    """The object of --json. With several holes, the values of the first stand on top, and each in `holes`.

    `tokens` are those of the best candidate; `reason` is null where it is shown.
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
        {"at": holes.place_of(text, completion.hole.start)} | _hole_object(completion)
        for completion in result.completions
    ]
    return first | run | {"holes": each}


def _hole_object(completion: HoleCompletion) -> dict[str, Any]:
    return {
        "text": completion.text,
        "shown": completion.shown,
        "reason": completion.reason,
        "confidence": completion.confidence,
        "candidates": [
            {name: value for name, value in asdict(candidate).items() if name != "evidence"}
            for candidate in completion.candidates
        ],
        "tokens": completion.candidates[0].tokens if completion.candidates else 0,
    }
