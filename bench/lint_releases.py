"""Does lint see what people mended? One-line changes between two releases of a package, before and after.

`python -m bench.lint_releases OLD NEW [OLD NEW …]`, each a folder or an archive (.tar.gz, .zip, .whl). Whether a change
mends a bug or only changes a behaviour cannot be told from the text: all small ones are counted, and all are listed.
"""

from __future__ import annotations

import difflib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from engine.errors import InputError, UsageError
from infill.cli_support import errors_to_exit_codes, load_completer
from infill.findings import LintRequest
from infill.languages import detect
from infill.lint import Linter
from infill.lint_files import character_ranges
from infill.lint_quiet import why_quiet
from infill.settings import Settings
from infill.syntax import SyntaxTree, parse

LARGEST = 200_000  # characters of a file
MOST_CHANGED = 4  # tokens of the line that come or go, at most
AROUND = 30  # lines that are linted on either side of a change


@dataclass(frozen=True)
class Change:
    """Line `number` (from 1) of `old` reads otherwise in `new`, and nothing else near it changed."""

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
    """near: codes of what was shown on the line before; right: it proposed the new line; after: codes shown on the new
    line; others: how much else was shown within AROUND lines. reached: the new line was among what the model read."""

    path: str
    before: str
    now: str
    near: list[str]
    right: bool
    after: list[str]
    others: int
    reached: bool


def read_package(source: Path) -> dict[str, str]:
    """Text by path below the top folder, of the files in known languages. InputError where it cannot be read."""
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
        raise InputError(f"{source} is no folder or archive that can be read ({error}); name an sdist.") from error
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
    """Archives of sources have a top folder named after their version."""
    parts = PurePosixPath(name).parts
    return "/".join(parts[1:]) if not source.is_dir() and source.suffix != ".whl" and len(parts) > 1 else name


def one_line_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    """Single lines in which at most MOST_CHANGED tokens of code differ; comments, strings and layout do not count."""
    for path in sorted({*old} & {*new}):
        before, after = old[path], new[path]
        if before == after or max(len(before), len(after)) > LARGEST or why_quiet(path, before) is not None:
            continue
        language = detect(path) or ""
        trees = parse(before, language), parse(after, language)
        if trees[0] is None or trees[1] is None:
            continue
        matcher = difflib.SequenceMatcher(None, before.split("\n"), after.split("\n"), autojunk=False)
        for tag, first, last, new_first, new_last in matcher.get_opcodes():
            if tag == "replace" and last - first == new_last - new_first == 1:
                change = Change(path, language, before, after, first + 1, new_first + 1)
                if 0 < _differing(_tokens(trees[0], first + 1), _tokens(trees[1], new_first + 1)) <= MOST_CHANGED:
                    yield change


def _tokens(tree: SyntaxTree, number: int) -> list[str]:
    """The leaves of the tree on a line, without comments; a string's inside counts as one of them, but always alike."""
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


def _differing(one: list[str], other: list[str]) -> int:
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return sum(max(b - a, d - c) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal")


def judge(linter: Linter, change: Change) -> Outcome:
    """What lint says of the code before and after."""
    path, language = change.path, change.language
    shown, others, right, reached = _near(linter, path, language, change.old, change.number, change.lines[1])
    after, more, _, _ = _near(linter, path, language, change.new, change.new_number, "")
    before, now = change.lines
    return Outcome(change.path, before.strip(), now.strip(), shown, right, after, others + more, reached)


def _near(
    linter: Linter, path: str, language: str, text: str, number: int, wanted: str
) -> tuple[list[str], int, bool, bool]:
    """(codes shown on the line, findings around it, one of them makes it `wanted`, so did an edit that was read)."""
    around = character_ranges(text, [range(max(1, number - AROUND), number + AROUND)])
    ((start, end),) = character_ranges(text, [range(number, number + 1)]) or ((0, 0),)
    request = LintRequest(text, language, path, around)
    judged = linter.judge(request)
    line = text[start:end].rstrip("\n")

    def makes(first: int, last: int, replacement: str) -> bool:
        return line[: first - start] + replacement + line[last - start :] == wanted

    shown = linter.select(request, judged)
    near = [one.edit for one in shown if start <= one.edit.start and one.edit.end <= end]
    read = [one.edit for one in judged if start <= one.edit.start and one.edit.end <= end]
    return (
        [edit.code for edit in near],
        len(shown) - len(near),
        any(makes(edit.start, edit.end, edit.replacement) for edit in near),
        any(makes(edit.start, edit.end, edit.replacement) for edit in read),
    )


@errors_to_exit_codes
def main(
    releases: Annotated[list[Path], typer.Argument(metavar="OLD NEW…", help="Folders or archives, in pairs.")],
    model: Annotated[str, typer.Option(help="Model to judge: a name, a hub id or a folder.")] = "pocket",
    most: Annotated[int, typer.Option(min=1, help="Most changes of each pair.")] = 100,
    threads: Annotated[int, typer.Option(min=1, help="Most CPU threads.")] = 8,
    output: Annotated[Path | None, typer.Option(help="JSON: every change and what was said of it.")] = None,
) -> None:
    """Lint one-line changes between releases."""
    if len(releases) % 2:
        raise UsageError("Releases come in pairs, the older one first; add the one that is missing.")
    linter = Linter(load_completer(Settings(model=model, threads=threads)))
    if not linter.can_lint:
        raise InputError(f"The model {model} has no bars to judge; learn some with `python -m bench.lint_bars`.")
    changes: list[Change] = []
    for old, new in zip(releases[::2], releases[1::2], strict=True):
        found = list(one_line_changes(read_package(old), read_package(new)))
        changes += [one for one in found if one.language in linter.languages][:most]
    console = Console(stderr=True)
    outcomes = [judge(linter, one) for one in track(changes, "changes", console=console, transient=True)]
    near = [one for one in outcomes if one.near]
    console = Console(highlight=False)
    console.print(
        f"{len(outcomes)} one-line changes, {sum(one.reached for one in outcomes)} of them an edit that was read; "
        f"{len(near)} had a finding before, of which {sum(one.right for one in near)} proposed the change; "
        f"{sum(bool(one.after) for one in outcomes)} have one after; {sum(one.others for one in outcomes)} findings "
        f"elsewhere within {AROUND} lines of them, before and after."
    )
    for one in near:
        console.print(f"  {'right' if one.right else 'near '} {one.path}: {one.before}  ->  {one.now}", markup=False)
    if output is not None:
        rows = [asdict(one) for one in outcomes]
        output.write_text(json.dumps({"changes": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
