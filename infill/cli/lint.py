"""`gesso lint`: files and folders in, what looks wrong in them out, in the form that was asked for.

Must not know how findings come about.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.errors import InputError, UsageError
from infill.cli import support as cli_support
from infill.cli import text_edits as edit
from infill.cli.service import SERVICE_HELP, service_for
from infill.cli.support import BAD_USE, errors_to_exit_codes, say
from infill.code import languages
from infill.findings import Finding, LintRequest
from infill.instructions import cannot_explain, follows_instructions
from infill.lint import files as lint_files
from infill.lint import report as lint_report
from infill.lint.kinds import ALL_KINDS, STYLE
from infill.lint.report import Place
from infill.model_store import POCKET, resolve
from infill.request import Hole
from infill.service.client import ServiceClient
from infill.version import installed_version

if TYPE_CHECKING:
    from infill.lint.linter import Linter

CLEAN, FOUND = 0, 1
HELP = """Look for slips in code with the model: wrong names, swapped arguments, lost words.

\b
gesso lint                      all of this folder
gesso lint src app.py           a folder and a file
gesso lint --diff main          only lines that differ from main
gesso lint --fix                show a diff of all fixes, then ask
gesso lint --on style-naming    style, too, against a file's own habits
gesso lint --explain            why, in a sentence, by a large model
gesso lint --json               for programs; --sarif, --github too

Folders are searched for files in known languages; what git ignores,
what a program wrote and other people's code is left out. A comment
`gesso: ignore` keeps a line quiet, `gesso: ignore[wrong-name]` one kind.

Exit codes: 0 nothing found, 1 something found, 2 wrong use or a model
that cannot lint, 3 trouble with the model or a file.
"""


@errors_to_exit_codes
def lint(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="PATH…", help="Files and folders; . if none.")] = None,
    diff: Annotated[str | None, typer.Option(metavar="REV", help="Only lines changed since this revision.")] = None,
    off: Annotated[list[str] | None, typer.Option(metavar="CODE", help="A kind not to look for; repeatable.")] = None,
    on: Annotated[list[str] | None, typer.Option(metavar="CODE", help="A kind of style to look for, too.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why, where the model follows instructions.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print SARIF 2.1.0.")] = False,
    github: Annotated[bool, typer.Option("--github", help="Print annotations for GitHub.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Show a diff of all fixes, ask, and write.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --fix: do not ask.")] = False,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="pocket, 26b, a hub id or a folder.")] = None,
    service: Annotated[bool | None, typer.Option("--service/--no-service", help=SERVICE_HELP)] = None,
) -> None:
    if sum((as_json, sarif, github)) > 1:
        raise UsageError("--json, --sarif and --github exclude each other; choose one.")
    if yes and not fix:
        raise UsageError("--yes answers what --fix asks; add --fix.")
    _check_kinds(on or (), off or ())
    named = paths or [Path()]
    files = lint_files.find_files(named)
    several = lint_files.names_in_several(files)
    changed = lint_files.changed_lines(diff, named) if diff is not None else None
    if changed is not None:
        files = [file for file in files if file.resolve() in changed]
    explainer = _explainer(model, service) if explain else None
    linter = _finder(explainer) if explainer is not None else _in_service(model, service) or _linter(model)
    found: list[Place] = []
    sources: dict[Path, edit.SourceFile] = {}
    for source, language in _sources(files, strict={path for path in named if not path.is_dir()}):
        ranges: tuple[tuple[int, int], ...] = ()
        if changed is not None:
            ranges = lint_files.character_ranges(source.text, changed[source.path.resolve()])
            if not ranges:
                continue
        request = LintRequest(
            source.text, language, str(source.path), ranges, off=frozenset(off or ()), on=frozenset(on or ())
        )
        findings = [one for one in linter.lint(request) if not _is_used_elsewhere(one, source.text, several)]
        if explainer is not None and findings:
            findings = list(explainer.lint(replace(request, findings=tuple(findings), explain=True)))
        mine = lint_report.places(source.path, source.text, findings)
        if mine:
            sources[source.path] = source
            found += mine
    cli_support.write_out(_written(found, as_json, sarif, github))
    if fix and found:
        _fix(sources, found, yes)
    elif not (as_json or sarif or github):
        say(f"{_counted(len(found), 'finding')} in {_counted(len(files), 'file')}.")
    raise typer.Exit(FOUND if found else CLEAN)


def _check_kinds(on: Sequence[str], off: Sequence[str]) -> None:
    """UsageError for a kind that there is not, or that cannot be switched on."""
    for code in (*on, *off):
        if code not in ALL_KINDS:
            raise UsageError(f"There is no kind {code!r}; known are {', '.join(ALL_KINDS)}.")
    for code in on:
        if code not in STYLE:
            raise UsageError(
                f"{code} cannot be switched on: a model shows it where it is good enough at it; {', '.join(STYLE)} can."
            )


def _is_used_elsewhere(finding: Finding, text: str, several: frozenset[str]) -> bool:
    """Whether a name that seems to be misspelled, or unusual, stands in another file too, and is meant."""
    return finding.code in ("misspelled", "style-naming") and text[finding.start : finding.end] in several


def _in_service(model: str | None, wanted: bool | None) -> ServiceClient | None:
    """The service, where it is to be asked."""
    settings = cli_support.read_settings(Path.cwd(), {"model": model}).settings
    found = service_for(settings, wanted, "batch")
    if found is not None and not found.can_lint:
        _leave(settings.model)
    return found


def _linter(model: str | None) -> Linter:
    """Leaves with one sentence where the model cannot lint."""
    from infill.lint.linter import Linter

    settings = cli_support.read_settings(Path.cwd(), {"model": model}).settings
    linter = Linter(cli_support.load_completer(settings))
    if not linter.can_lint:
        _leave(settings.model)
    return linter


def _explainer(model: str | None, service: bool | None) -> Linter | ServiceClient:
    """What explains findings. UsageError for a model that follows no instructions."""
    from infill.lint.linter import Linter

    settings = cli_support.read_settings(Path.cwd(), {"model": model}).settings
    resolve(settings.model)
    if not follows_instructions(settings.model):
        raise UsageError(cannot_explain(settings.model))
    return service_for(settings, service, "batch") or Linter(cli_support.load_completer(settings))


def _finder(explainer: Linter | ServiceClient) -> Linter | ServiceClient:
    """What finds for it: itself, or the smaller model where it has no bars."""
    return explainer if explainer.can_lint else _linter(POCKET)


def _leave(model: str) -> NoReturn:
    say(f"The model {model} cannot lint: no bars were learnt for it; use the pocket model.")
    raise typer.Exit(BAD_USE)


def _sources(files: Sequence[Path], strict: set[Path]) -> Iterator[tuple[edit.SourceFile, str]]:
    """The files that can be read, behind a progress bar. strict: an error in these is not passed over."""
    columns = (TextColumn("looking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = cli_support.errors_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for file in progress.track(files):
            try:
                source = edit.read_source(file)
            except InputError as error:
                if file in strict:
                    raise
                say(str(error))
                continue
            language = languages.detect(str(file), source.text.partition("\n")[0])
            if language is not None:
                yield source, language


def _written(found: Sequence[Place], as_json: bool, sarif: bool, github: bool) -> str:
    if as_json:
        return lint_report.as_json(found)
    if sarif:
        return lint_report.as_sarif(found, installed_version())
    return lint_report.as_github(found) if github else lint_report.as_text(found)


def _fix(sources: dict[Path, edit.SourceFile], found: Sequence[Place], yes: bool) -> None:
    """The diff goes to standard error, since standard output has the findings."""
    texts: dict[Path, str] = {}
    for path, source in sources.items():
        mine = [one.finding for one in found if one.path == path]
        changes = [(Hole(*place), one.replacement) for one in mine for place in one.places]
        texts[path] = edit.apply(source.text, changes)
        sys.stderr.write(edit.unified_diff(source.text, texts[path], path.as_posix()))
    sys.stderr.flush()
    what = f"{_counted(len(found), 'fix', 'fixes')} in {_counted(len(texts), 'file')}"
    if not yes and not typer.confirm(f"gesso: write {what}?", default=False, err=True):
        say("Nothing was written.")
        return
    for path, text in texts.items():
        edit.write_in_place(sources[path], text)
    say(f"Wrote {what}.")


def _counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
