"""Measures lint on one-line changes between two releases of a package, before and after the change.

`python -m bench.lint.releases OLD NEW [OLD NEW …]`, each a folder or an archive (.tar.gz, .zip, .whl). Only changes
that a single edit of lint could make count. The text does not show whether a change fixes a bug or changes behaviour,
so all are listed.
"""

from __future__ import annotations

import difflib
import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from bench.lint.loading import load_linter
from bench.report import RESULTS, Report, conditions
from engine.errors import InputError, UsageError
from infill.cli.support import errors_to_exit_codes
from infill.code.languages import detect
from infill.code.syntax import SyntaxTree, parse
from infill.findings import LintRequest
from infill.lint.edits import find_edits
from infill.lint.files import character_ranges
from infill.lint.kinds import Edit
from infill.lint.linter import Linter
from infill.lint.suppressions import is_skipped
from infill.lint.symbols import SymbolTable

MAX_FILE = 200_000  # characters of a file
MAX_TOKENS = 4  # changed tokens of a line
AROUND = 15  # lines linted above and below a change


@dataclass(frozen=True)
class Change:
    """Line `number` (from 1) of `old` is line `new_number` of `new`, changed; its neighbours are not."""

    path: str
    language: str
    old: str
    new: str
    number: int
    new_number: int

    @property
    def lines(self) -> tuple[str, str]:
        return self.old.split("\n")[self.number - 1], self.new.split("\n")[self.new_number - 1]


@dataclass(frozen=True)
class Outcome:
    """What lint shows for a change.

    codes: kinds that propose the change. near: codes of findings on the old line; right: one of them proposed the new
    line. after: codes of findings on the new line. elsewhere: other findings within AROUND lines, before and after.
    reached: the model read an edit that makes the change.
    """

    path: str
    before: str
    now: str
    codes: list[str]
    near: list[str]
    right: bool
    after: list[str]
    elsewhere: int
    reached: bool


def read_package(source: Path) -> dict[str, str]:
    """Texts of the files in known languages, by path below the top folder. Raises InputError if `source` is
    unreadable."""
    try:
        if source.is_dir():
            parts = {file.relative_to(source).as_posix(): file.read_bytes() for file in _files(source)}
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                parts = {name: archive.read(name) for name in archive.namelist() if detect(name)}
        else:
            with tarfile.open(fileobj=io.BytesIO(source.read_bytes())) as tar:
                members = [one for one in tar.getmembers() if one.isfile() and detect(one.name)]
                parts = {one.name: content.read() for one in members if (content := tar.extractfile(one)) is not None}
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise InputError(f"Cannot read {source} as a folder or archive ({error}); pass an sdist.") from error
    found = {}
    for name, data in parts.items():
        try:
            found[_below_top(name, source)] = data.decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue
    return found


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file() and detect(file.name))


def _below_top(name: str, source: Path) -> str:
    """The path without the top folder that source archives have."""
    parts = PurePosixPath(name).parts
    return "/".join(parts[1:]) if not source.is_dir() and source.suffix != ".whl" and len(parts) > 1 else name


def one_line_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    """Changes of single lines by at most MAX_TOKENS tokens of code; comments, strings and layout do not count."""
    for path in sorted({*old} & {*new}):
        before, after = old[path], new[path]
        if before == after or max(len(before), len(after)) > MAX_FILE or is_skipped(path, before):
            continue
        language = detect(path) or ""
        trees = parse(before, language), parse(after, language)
        if trees[0] is None or trees[1] is None:
            continue
        matcher = difflib.SequenceMatcher(None, before.split("\n"), after.split("\n"), autojunk=False)
        for tag, first, last, new_first, new_last in matcher.get_opcodes():
            if tag == "replace" and last - first == new_last - new_first == 1:
                change = Change(path, language, before, after, first + 1, new_first + 1)
                if 0 < _changed_tokens(_tokens(trees[0], first + 1), _tokens(trees[1], new_first + 1)) <= MAX_TOKENS:
                    yield change


def _tokens(tree: SyntaxTree, number: int) -> list[str]:
    """The tokens of a line without comments. All strings count as the same token."""
    (span,) = character_ranges(tree.text, [range(number, number + 1)]) or ((0, 0),)
    start, end = tree.byte(span[0]), tree.byte(span[1])
    found, pending = [], [tree.root]
    while pending:
        node = pending.pop()
        if node.end_byte <= start or node.start_byte >= end or node.type in tree.language.comments:
            continue
        if node.type in tree.language.strings:
            found.append("string")
        elif not node.child_count:
            found.append(tree.part(node))
        else:
            pending.extend(reversed(node.children))
    return found


def _changed_tokens(one: list[str], other: list[str]) -> int:
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return sum(max(b - a, d - c) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal")


def proposing_kinds(change: Change) -> list[str]:
    """The codes of kinds that propose the change."""
    tree = parse(change.old, change.language)
    if tree is None:
        return []
    start, end = _line(change.old, change.number)
    found = find_edits(tree, SymbolTable(tree), ((start, end),))
    line = change.old[start:end]
    return sorted({edit.code for edit in found if _edited_line(line, start, edit) == change.lines[1]})


def measure(linter: Linter, change: Change, codes: Sequence[str]) -> Outcome:
    """What lint shows before and after the change. codes: kinds that propose it."""
    path, language = change.path, change.language
    shown, elsewhere, right, reached = _near(linter, path, language, change.old, change.number, change.lines[1])
    after, more, _, _ = _near(linter, path, language, change.new, change.new_number, "")
    before, now = change.lines
    return Outcome(change.path, before.strip(), now.strip(), [*codes], shown, right, after, elsewhere + more, reached)


def _near(
    linter: Linter, path: str, language: str, text: str, number: int, target: str
) -> tuple[list[str], int, bool, bool]:
    """(codes shown on the line, number of other findings, whether one on the line makes it `target`, whether any
    candidate does)."""
    around = character_ranges(text, [range(max(1, number - AROUND), number + AROUND)])
    start, end = _line(text, number)
    request = LintRequest(text, language, path, around)
    candidates = linter.candidates(request, linter.shown(language))
    line = text[start:end]
    shown = linter.select(request, candidates)
    near = [one.edit for one in shown if start <= one.edit.start and one.edit.end <= end]
    read = [one.edit for one in candidates if start <= one.edit.start and one.edit.end <= end]
    return (
        [edit.code for edit in near],
        len(shown) - len(near),
        any(_edited_line(line, start, edit) == target for edit in near),
        any(_edited_line(line, start, edit) == target for edit in read),
    )


def _line(text: str, number: int) -> tuple[int, int]:
    """[start, end) of line `number` (from 1), without its line end."""
    ((start, end),) = character_ranges(text, [range(number, number + 1)]) or ((0, 0),)
    return start, end - text[start:end].endswith("\n")


def _edited_line(line: str, start: int, edit: Edit) -> str:
    """The line that starts at `start`, after the edit."""
    return line[: max(0, edit.start - start)] + edit.replacement + line[max(0, edit.end - start) :]


def releases_report(changes: int, outcomes: Sequence[Outcome], shown: Set[str], known: Mapping[str, Any]) -> Report:
    """changes: how many small changes there are. outcomes: for those that lint could propose."""
    rows = []
    for code in [*sorted(shown), "all"]:
        of_kind = [one for one in outcomes if code == "all" or code in one.codes]
        near = [one for one in of_kind if (one.near if code == "all" else code in one.near)]
        rows.append([code, str(len(of_kind)), *(str(sum(map(bool, column))) for column in _columns(of_kind, near))])
    elsewhere = sum(one.elsewhere for one in outcomes)
    notes = [
        f"{changes} one-line changes of at most {MAX_TOKENS} tokens; lint could propose {len(outcomes)} of them. "
        f"{elsewhere} other findings within {AROUND} lines, before and after.",
        *(
            f"{'right' if one.right else 'near' if one.near else 'after' if one.after else 'not shown'}: {one.path}: "
            f"`{one.before}` -> `{one.now}`"
            for one in outcomes
        ),
    ]
    header = ("kind", "changes", "read", "shown before", "right fix", "shown after")
    figures = {"changes": changes, "outcomes": [asdict(one) for one in outcomes]}
    return Report("Lint of one-line changes between releases", {**known, **conditions()}, header, rows, notes, figures)


def _columns(of_kind: Sequence[Outcome], near: Sequence[Outcome]) -> list[list[object]]:
    return [[one.reached for one in of_kind], [*near], [one.right for one in near], [one.after for one in of_kind]]


@errors_to_exit_codes
def main(
    releases: Annotated[list[Path], typer.Argument(metavar="OLD NEW…", help="Folders or archives, in pairs.")],
    model: Annotated[str, typer.Option(help="Model to measure: a name, a hub id or a folder.")] = "coder",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    write: Annotated[bool, typer.Option(help="Write bench/results/lint_releases.json and .md.")] = False,
) -> None:
    """Lint one-line changes between releases."""
    if len(releases) % 2:
        raise UsageError("Releases come in pairs, the older one first; add the missing one.")
    linter = load_linter(model, threads)
    pairs = [*zip(releases[::2], releases[1::2], strict=True)]
    console = Console(stderr=True)
    changes: list[Change] = []
    for old, new in track(pairs, "releases", console=console, transient=True):
        found = one_line_changes(read_package(old), read_package(new))
        changes += [one for one in found if one.language in linter.languages]
    proposed = [(one, linter.shown(one.language).intersection(proposing_kinds(one))) for one in changes]
    possible = [(one, codes) for one, codes in proposed if codes]
    outcomes = [
        measure(linter, one, sorted(codes))
        for one, codes in track(possible, "changes", console=console, transient=True)
    ]
    known = {"model": model, "releases": [f"{old.name} {new.name}" for old, new in pairs]}
    shown = frozenset(code for one in linter.languages for code in linter.shown(one))
    report = releases_report(len(changes), outcomes, shown, known)
    report.show()
    if write:
        report.write("lint_releases", RESULTS)


if __name__ == "__main__":
    typer.run(main)
