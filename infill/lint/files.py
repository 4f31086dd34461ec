"""The files and lines that `gesso lint` checks: paths, files that git ignores, changes since a revision.

Runs `git` for folders in a repository, and no other program. Must not know what lint looks for.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from engine.errors import InputError, UsageError
from infill.code import languages

Lines = range  # line numbers from 1

_NAME = re.compile(r"[^\W\d]\w*")
_HUNK = re.compile(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@")


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The named files, and in folders every file in a known language that git does not ignore. Outside a repository,
    every such file that is not in a hidden folder. Raises InputError for a path that does not exist."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            candidates = _git_files(path) if _is_in_repository(path) else _all_files(path)
            found.update((file, None) for file in sorted(candidates) if languages.detect(file.name) and file.is_file())
        elif path.is_file():
            found[path] = None
        else:
            raise InputError(f"There is no file or folder {path}; check the name.")
    return [*found]


def shared_names(files: Iterable[Path]) -> frozenset[str]:
    """The names that occur in more than one of the files. Unreadable files are skipped."""
    counts: Counter[str] = Counter()
    for file in files:
        try:
            counts.update(set(_NAME.findall(file.read_text("utf-8"))))
        except (OSError, UnicodeDecodeError):
            continue
    return frozenset(name for name, count in counts.items() if count > 1)


def _is_in_repository(folder: Path) -> bool:
    resolved = folder.resolve()
    return any((parent / ".git").exists() for parent in (resolved, *resolved.parents))


def _git_files(folder: Path) -> list[Path]:
    """Tracked files, and untracked ones that are not ignored."""
    names = _git(folder, "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "-z")
    return [folder / name for name in names.split("\0") if name]


def _all_files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names]
    return found


def changed_lines(revision: str, paths: Sequence[Path]) -> dict[Path, list[Lines]]:
    """The lines added or changed since `revision` in files below `paths`, by resolved path.

    Raises UsageError for an unknown revision, or outside a repository.
    """
    found: defaultdict[Path, list[Lines]] = defaultdict(list)
    for folder in dict.fromkeys(path if path.is_dir() else path.parent for path in paths):
        if not _is_in_repository(folder):
            raise UsageError(f"{folder} is not in a git repository; leave out --diff.")
        if revision.startswith("-"):
            raise UsageError(f"{revision!r} is not a revision; name a commit, a branch or a tag.")
        _git(folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", revision=revision)
        top = Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
        diff = _git(folder, *"-c core.quotePath=false diff --unified=0 --no-color --no-ext-diff".split(),
                    "--src-prefix=a/", "--dst-prefix=b/", revision, "--", ".")  # fmt: skip
        for name, lines in _parse_diff(diff).items():
            found[(top / name).resolve()] += lines
    return found


def _parse_diff(diff: str) -> Mapping[str, list[Lines]]:
    found: defaultdict[str, list[Lines]] = defaultdict(list)
    name, in_header = "", False
    for line in diff.split("\n"):
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


def _git(folder: Path, *arguments: str, revision: str | None = None) -> str:
    """The output of git. revision: reported as unknown if git fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except OSError as error:
        raise InputError(f"{folder} is in a git repository, but git cannot be run; install git.") from error
    if done.returncode and revision is not None:
        raise UsageError(f"There is no revision {revision!r} in this repository; name a commit, a branch or a tag.")
    if done.returncode:
        error_line = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise InputError(f"git cannot read the repository of {folder} ({error_line}); try `git status` there.")
    return done.stdout.decode("utf-8", "surrogateescape")
