"""The files and lines that `gesso lint` checks: paths, files that a repository ignores, changes since a revision.

The folders may be a stranger's: only regular files of limited size are found in them, and no link is followed. Must not
know what lint looks for.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from engine.errors import InputError, UsageError
from engine.files import read_small_file
from infill.code import languages
from infill.git import Revision, diff
from infill.git_patterns import MOST_LEVELS
from infill.ignore_files import Verdicts, ignored_by, repository_of
from infill.privacy import check_named, decided_reason

Lines = range  # line numbers from 1

FILE_BYTES = 4 << 20  # of a file found in a folder
_NAME = re.compile(r"[^\W\d]\w*")
_HUNK = re.compile(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@")


def find_files(paths: Sequence[Path], unreadable: dict[Path, str] | None = None) -> list[Path]:
    """The named files, and in folders every file in a known language that is not private. Outside a repository, every
    such file that is not in a hidden folder. Raises InputError for a path that does not exist, and for a named file or
    folder that must not or cannot be read.

    unreadable: gets the other files and folders that cannot be read, each with a sentence.
    """
    found: dict[Path, None] = {}
    unreadable = {} if unreadable is None else unreadable
    for path in paths:
        if path.is_dir():
            found.update((file, None) for file in sorted(_files_in(path, unreadable)))
        elif path.is_file():
            check_named(path)
            found[path] = None
        elif os.path.lexists(path):
            raise InputError(f"{path} is not a regular file or folder, or links to nothing; name another one.")
        else:
            raise InputError(f"There is no file or folder {path}; check the name.")
    return [*found]


def shared_names(files: Iterable[Path]) -> frozenset[str]:
    """The names that occur in more than one of the files. Unreadable files are skipped."""
    counts: Counter[str] = Counter()
    for file in files:
        try:
            counts.update(set(_NAME.findall(read_small_file(file, FILE_BYTES).decode("utf-8"))))
        except (OSError, UnicodeDecodeError):
            continue
    return frozenset(name for name, count in counts.items() if count > 1)


def _files_in(top: Path, unreadable: dict[Path, str]) -> Iterator[Path]:
    """The files below a folder. Other repositories in it are left out."""
    resolved = top.resolve()
    is_repository = (resolved / ".git").exists()
    in_repository = is_repository or repository_of(resolved) is not None
    known = Verdicts()
    if in_repository:
        ignored_by(resolved / "_", known=known)  # raises GitUnreadable, instead of finding no files
        if not is_repository and (reason := decided_reason(resolved, known=known)):
            unreadable[top] = f"{top} was not read. {reason} Name the files in it that you want to check."
            return

    def is_read(path: Path) -> bool:
        try:
            return decided_reason(resolved / path.relative_to(top), known=known) is None
        except InputError as error:
            unreadable[path] = str(error)
            return False

    def report(error: OSError) -> None:
        sentence = f"{error.filename} cannot be read ({error.strerror}); check its permissions."
        if Path(error.filename) == top:
            raise InputError(sentence)
        unreadable[Path(error.filename)] = sentence

    for parent, folders, names in os.walk(top, onerror=report):
        folder = Path(parent)
        if len(folder.relative_to(top).parts) >= MOST_LEVELS:
            unreadable[folder] = f"{folder} was not read, because it is nested in {MOST_LEVELS} folders; name it."
            folders.clear()
            continue
        kept = [name for name in folders if _may_be_searched(resolved / folder.relative_to(top) / name, in_repository)]
        folders[:] = [name for name in kept if not in_repository or is_read(folder / name)]
        for file in (folder / name for name in names if languages.detect(name)):
            if file.is_symlink() or not is_read(file):
                continue
            if sentence := _unusable(file):
                unreadable[file] = sentence
            else:
                yield file


def _may_be_searched(folder: Path, in_repository: bool) -> bool:
    """Whether it is not hidden, or in a repository, not another repository."""
    if not in_repository:
        return not folder.name.startswith(".")
    return folder.name != ".git" and not (folder / ".git").exists()


def _unusable(file: Path) -> str | None:
    """A sentence if it is not a regular file that is small enough."""
    try:
        state = file.lstat()
    except OSError as error:
        return f"{file} cannot be read ({error.strerror}); check its permissions."
    if not stat.S_ISREG(state.st_mode):
        return f"{file} was not read, because it is not a regular file; remove or rename it."
    if state.st_size > FILE_BYTES:
        return f"{file} was not read, because it has more than {FILE_BYTES >> 20} MiB; name it to check it."
    return None


def changed_lines(revision: str, files: Iterable[Path]) -> dict[Path, list[Lines]]:
    """The lines of `files` added or changed since `revision`, by resolved path; all lines of new files.

    Raises UsageError for an unknown revision, or outside a repository.
    """
    by_root: defaultdict[Path, list[Path]] = defaultdict(list)
    for file in files:
        root = repository_of(file.resolve())
        if root is None:
            raise UsageError(f"{file} is not in a git repository; leave out --diff.")
        by_root[root].append(file.resolve())
    found: dict[Path, list[Lines]] = {}
    for root, its_files in by_root.items():
        found |= _changed_in(Revision(root, revision), its_files)
    return found


def _changed_in(revision: Revision, files: Iterable[Path]) -> dict[Path, list[Lines]]:
    after: dict[str, bytes] = {}
    for file in files:
        try:
            after[file.relative_to(revision.root).as_posix()] = read_small_file(file, FILE_BYTES)
        except OSError as error:
            raise InputError(f"{file} cannot be read ({error.strerror}); leave it out.") from error
    before = revision.contents(after, FILE_BYTES)
    numbers = {path: str(number) for number, path in enumerate(before)}  # as names, since paths may be anything
    by_number = _parse_diff(
        diff(
            {number: before[path] for path, number in numbers.items()},
            {number: after[path] for path, number in numbers.items()},
        )
    )
    return {revision.root / path: by_number[number] for path, number in numbers.items() if number in by_number}


def _parse_diff(text: str) -> Mapping[str, list[Lines]]:
    """The added lines by file name."""
    found: defaultdict[str, list[Lines]] = defaultdict(list)
    name, in_header = "", False
    for line in text.split("\n"):
        if line.startswith("diff --git "):
            name, in_header = "", True
        elif in_header and line.startswith("+++ b/"):
            name = line[len("+++ b/") :].rstrip("\t")
        elif match := _HUNK.match(line):
            in_header = False
            start, count = int(match[1]), int(match[2] or 1)
            if name and count:
                found[name].append(range(start, start + count))
    return found


def character_ranges(text: str, lines: Iterable[Lines]) -> tuple[tuple[int, int], ...]:
    """[start, end) in characters of each range of line numbers."""
    starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text)]
    last = len(starts) - 1
    spans = ((starts[min(run.start - 1, last)], starts[min(run.stop - 1, last)]) for run in lines)
    return tuple(span for span in spans if span[0] < span[1])
