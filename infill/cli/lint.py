"""`gesso lint`: reads files and folders, prints findings in the chosen format, and applies fixes.

Must not know how findings are made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.errors import InputError, UsageError
from infill.cli import support as cli_support
from infill.cli import text_edits
from infill.cli.encodings import encoding_named
from infill.cli.service import SERVICE_HELP, service_for
from infill.cli.support import STDIN, errors_to_exit_codes, say
from infill.code import languages
from infill.code.syntax import error_score, parse
from infill.findings import Finding, LintRequest
from infill.instructions import cannot_explain, follows_instructions
from infill.lint import files as lint_files
from infill.lint import report as lint_report
from infill.lint.coverage import UNREADABLE, Coverage, NotJudged, kinds_off, why_not_judged
from infill.lint.kinds import ALL_KINDS, STRUCTURAL, STRUCTURAL_LANGUAGES
from infill.lint.report import LocatedFinding
from infill.lint.thresholds import Thresholds
from infill.model_store import POCKET, concrete, resolve
from infill.printable import printable
from infill.request import Hole
from infill.service.client import ServiceClient
from infill.settings import Settings
from infill.version import installed_version

if TYPE_CHECKING:
    from infill.lint.linter import Linter

CLEAN, FOUND = 0, 1
NEEDS_CODE_MODEL = (
    "Only missing-self and style are looked for, since lint needs a code model; get one with `gesso model pull coder`."
)
HELP = """Find likely mistakes in code with a code model.

\b
gesso lint                      everything in this folder
gesso lint src app.py           a folder and a file
gesso lint - --lang python      standard input
gesso lint --diff main          only lines changed since main
gesso lint --on style-naming    also a kind that is off by default
gesso lint --fix --on wrong-name    show a diff of its fixes, then ask
gesso lint --explain            a sentence of explanation, which is a guess
gesso lint --json               for programs; also --sarif, --github

In folders, lint checks files in known languages and skips ignored,
generated and third-party files. The comment `gesso: ignore` suppresses
findings on a line, `gesso: ignore[wrong-name]` those of one kind.

Python, JavaScript, TypeScript and Go are judged, by a code model: get one
with `gesso model pull coder`. Without it only missing-self and style are
found. What was not judged is counted on standard error, and listed by
--json and --sarif.

Exit codes: 0 no findings in what was judged, or all of them were fixed; 1
findings; 2 wrong usage; 3 trouble with the model or a file.
"""


@errors_to_exit_codes
def lint(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH…", help="Files and folders, default: .; - reads standard input."),
    ] = None,
    diff: Annotated[str | None, typer.Option(metavar="REV", help="Only lines changed since this revision.")] = None,
    off: Annotated[list[str] | None, typer.Option(metavar="CODE", help="Leave out this kind; repeatable.")] = None,
    on: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Include this kind; with --fix: fix it; repeatable.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Let the model guess why, in a sentence.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print SARIF 2.1.0.")] = False,
    github: Annotated[bool, typer.Option("--github", help="Print GitHub annotations.")] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Show a diff of the fixes of the kinds of --on, ask, and write.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --fix: do not ask.")] = False,
    lang: Annotated[str | None, typer.Option(metavar="LANGUAGE", help="Of standard input.")] = None,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the files, such as latin-1; by default it is found out.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="coder, 26b, a hub ID, a file or a folder.")] = None,
    service: Annotated[bool | None, typer.Option("--service/--no-service", help=SERVICE_HELP)] = None,
) -> None:
    if sum((as_json, sarif, github)) > 1:
        raise UsageError("Options --json, --sarif and --github exclude each other; choose one.")
    if yes and not fix:
        raise UsageError("Option --yes only works with --fix; add --fix.")
    _check_kinds(on or (), off or ())
    if fix and not on:
        raise UsageError("Option --fix needs the kinds to fix, since fixes may be wrong; add --on CODE.")
    included, excluded = frozenset(on or ()), frozenset(off or ())
    encoding = encoding_named(encoding) if encoding is not None else None
    roots = paths or [Path()]
    cli_support.check_paths(roots)
    reads_stdin = Path(STDIN) in roots
    if reads_stdin and (len(roots) > 1 or fix or diff is not None):
        raise UsageError("Standard input (-) excludes other paths, --fix and --diff; leave them out, or name a file.")
    if lang is not None and not reads_stdin:
        raise UsageError("Option --lang only works with standard input; give - as the path.")
    stdin = [_read_stdin(lang, encoding)] if reads_stdin else []
    unreadable: dict[Path, str] = {}
    files = [] if reads_stdin else lint_files.find_files(roots, unreadable)
    shared_names = lint_files.shared_names(files)
    changed = lint_files.changed_lines(diff, files) if diff is not None else None
    if changed is not None:
        files = [file for file in files if file.resolve() in changed]
    explainer = _explainer(model, service) if explain else None
    linter = _finder(explainer) if explainer is not None else _linter_in_service(model, service) or _linter(model)
    found: list[LocatedFinding] = []
    sources: dict[Path, text_edits.SourceFile] = {}
    languages_judged = _languages(linter, model)
    coverage = Coverage(kinds_off(_kinds(linter, model), excluded))
    for sentence in dict.fromkeys(unreadable.values()):
        say(sentence)
    for path in unreadable:
        coverage.add(path, NotJudged(path, UNREADABLE, is_folder=path.is_dir()))
    strict = {path for path in roots if not path.is_dir()}
    for source, language in chain(stdin, _sources(files, strict, encoding, coverage)):
        ranges: tuple[tuple[int, int], ...] = ()
        if changed is not None:
            ranges = lint_files.character_ranges(source.text, changed[source.path.resolve()])
            if not ranges:
                continue
        reason = why_not_judged(source.path, source.text, language, languages_judged, included - excluded)
        coverage.add(source.path, reason)
        if reason is not None and not reason.part:
            continue
        request = LintRequest(source.text, language, str(source.path), ranges, off=excluded, on=included)
        findings = [one for one in linter.lint(request) if not _is_used_elsewhere(one, source.text, shared_names)]
        if explainer is not None and findings:
            findings = list(explainer.lint(replace(request, findings=tuple(findings), explain=True)))
        if findings:
            sources[source.path] = source
            found += lint_report.locate(source.path, source.text, findings)
    cli_support.write_out(_formatted(found, coverage, as_json, sarif, github))
    fixable = [one for one in found if one.finding.code in included]
    if fix and fixable:
        if _fix(sources, fixable, roots, yes) and len(fixable) == len(found):
            found = []
    elif not (as_json or sarif or github):
        say(f"{_count(len(found), 'finding')} in {_count(coverage.judged, 'file')}.")
    if sentence := coverage.sentence():
        say(sentence)
    raise typer.Exit(FOUND if found else CLEAN)


def _read_stdin(lang: str | None, encoding: str | None) -> tuple[text_edits.SourceFile, str]:
    """Standard input and its language, from its first line unless it is named."""
    named, source = cli_support.language_named(lang), text_edits.read_stdin(encoding)
    language = named or languages.detect(None, source.text.partition("\n")[0])
    if language is None:
        raise UsageError("The language of standard input is not known; name it with --lang.")
    return source, language


def _check_kinds(on: Sequence[str], off: Sequence[str]) -> None:
    """Raises UsageError for an unknown kind."""
    for code in (*on, *off):
        if code not in ALL_KINDS:
            raise UsageError(f"There is no kind {code!r}; choose from {', '.join(ALL_KINDS)}.")


def _is_used_elsewhere(finding: Finding, text: str, shared_names: frozenset[str]) -> bool:
    """Whether another file uses the name too, which is then deliberate."""
    return finding.code in ("misspelled", "style-naming") and text[finding.start : finding.end] in shared_names


def _linter_in_service(model: str | None, use_service: bool | None) -> ServiceClient | None:
    """The service, if it should be used and its model can judge."""
    found = service_for(_settings(model), use_service, "batch")
    return found if found is not None and found.can_lint else None


def _settings(model: str | None) -> Settings:
    return cli_support.read_settings(Path.cwd(), {"model": model}).settings


def _linter(model: str | None) -> Linter:
    """Says so if the model cannot judge."""
    from infill.lint.linter import Linter

    settings = _settings(model)
    if concrete(settings.model) == POCKET:
        linter = Linter(None)
    else:
        linter = Linter(cli_support.load_completer(settings))
    if not linter.can_lint:
        say(NEEDS_CODE_MODEL)
    return linter


def _explainer(model: str | None, use_service: bool | None) -> Linter | ServiceClient:
    """Raises UsageError if the model does not follow instructions."""
    from infill.lint.linter import Linter

    settings = _settings(model)
    name = concrete(settings.model)
    resolve(name)
    if not follows_instructions(name):
        raise UsageError(cannot_explain(name))
    return service_for(settings, use_service, "batch") or Linter(cli_support.load_completer(settings))


def _finder(explainer: Linter | ServiceClient) -> Linter | ServiceClient:
    """The explainer itself if it can judge."""
    return explainer if explainer.can_lint else _linter(POCKET)


def _languages(linter: Linter | ServiceClient, model: str | None) -> frozenset[str]:
    """The languages that the linter judges."""
    found = _thresholds(linter, model)
    return STRUCTURAL_LANGUAGES | (found.languages if found is not None else frozenset())


def _kinds(linter: Linter | ServiceClient, model: str | None) -> frozenset[str]:
    """The kinds that the linter looks for."""
    found = _thresholds(linter, model)
    kinds = found.kinds if found is not None else {}
    return STRUCTURAL | {code for code, threshold in kinds.items() if threshold.minimums}


def _thresholds(linter: Linter | ServiceClient, model: str | None) -> Thresholds | None:
    if isinstance(linter, ServiceClient):
        return Thresholds.read(concrete(_settings(model).model))
    return linter.thresholds


def _sources(
    files: Sequence[Path], strict: set[Path], encoding: str | None, coverage: Coverage
) -> Iterator[tuple[text_edits.SourceFile, str | None]]:
    """The readable files with their languages, with a progress bar. strict: files whose errors are raised."""
    columns = (TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = cli_support.errors_console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for file in progress.track(files):
            try:
                source = text_edits.read_source(file, encoding)
            except InputError as error:
                if file in strict:
                    raise
                say(str(error))
                coverage.add(file, NotJudged(file, UNREADABLE))
                continue
            if source.notice is not None:
                say(source.notice)
            yield source, languages.detect(str(file), source.text.partition("\n")[0])


def _formatted(found: Sequence[LocatedFinding], coverage: Coverage, as_json: bool, sarif: bool, github: bool) -> str:
    if as_json:
        return lint_report.as_json(found, coverage)
    if sarif:
        return lint_report.as_sarif(found, installed_version(), coverage)
    return lint_report.as_github(found) if github else lint_report.as_text(found)


def _fix(
    sources: dict[Path, text_edits.SourceFile], found: Sequence[LocatedFinding], roots: Sequence[Path], yes: bool
) -> bool:
    """Returns whether the fixes were written. The diff goes to standard error, as standard output has the findings."""
    texts: dict[Path, str] = {}
    for path in dict.fromkeys(one.path for one in found):
        source, findings = sources[path], [one.finding for one in found if one.path == path]
        changes = [(Hole(*range_), one.replacement) for one in findings for range_ in one.ranges]
        texts[path] = text_edits.apply(source.text, changes)
        sys.stderr.write(printable(text_edits.unified_diff(source.text, texts[path], path.as_posix())))
    sys.stderr.flush()
    fixes = f"{_count(len(found), 'fix', 'fixes')} in {_count(len(texts), 'file')}"
    if not yes and not typer.confirm(f"gesso: write {fixes}?", default=False, err=True):
        say("Nothing was written.")
        return False
    for path, text in texts.items():
        if _breaks(path, sources[path].text, text):
            raise InputError(f"The fixes of {path} together would break its syntax; fix one kind at a time.")
    for path, text in texts.items():
        text_edits.write_in_place(sources[path], text, _tree(path, roots))
    say(f"Wrote {fixes}.")
    return True


def _breaks(path: Path, before: str, after: str) -> bool:
    """Whether a text has more syntax errors after its fixes."""
    language = languages.detect(str(path), before.partition("\n")[0])
    trees = parse(before, language), parse(after, language)
    return trees[0] is not None and trees[1] is not None and error_score(trees[1]) > error_score(trees[0])


def _tree(path: Path, roots: Sequence[Path]) -> Path:
    """The folder that writing `path` may not lead out of: the given folder that contains it."""
    folders = [root for root in roots if root.is_dir() and path.is_relative_to(root)]
    return max(folders, key=lambda folder: len(folder.parts)) if folders else text_edits.named_tree(path)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
