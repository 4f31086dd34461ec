"""Which files and lines `gesso lint` looks at: paths, what git ignores, what changed since a revision.

Runs `git` where a folder lies in a repository, and nothing else. Must not know what is looked for in the files.
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

Lines = range  # numbers from 1, the last one excluded

_NAME = re.compile(r"[^\W\d]\w*")
_HUNK = re.compile(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@")


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The named files as they are, and of folders every file in a known language that git does not ignore; without a
    repository every one outside of hidden folders. Raises InputError for a path that does not exist."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            listed = _listed_by_git(path) if _repository(path) else _walked(path)
            found.update((file, None) for file in sorted(listed) if languages.detect(file.name) and file.is_file())
        elif path.is_file():
            found[path] = None
        else:
            raise InputError(f"There is no file or folder {path}; check the name.")
    return [*found]


def names_in_several(files: Iterable[Path]) -> frozenset[str]:
    """The names that stand in more than one of the files; those that cannot be read are passed over."""
    counts: Counter[str] = Counter()
    for file in files:
        try:
            counts.update(set(_NAME.findall(file.read_text("utf-8"))))
        except (OSError, UnicodeDecodeError):
            continue
    return frozenset(name for name, count in counts.items() if count > 1)


def _repository(folder: Path) -> bool:
    whole = folder.resolve()
    return any((above / ".git").exists() for above in (whole, *whole.parents))


def _listed_by_git(folder: Path) -> list[Path]:
    """Those under version control, and new ones that are not ignored."""
    names = _git(folder, "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "-z")
    return [folder / name for name in names.split("\0") if name]


def _walked(folder: Path) -> list[Path]:
    found = []
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(at, name) for name in names]
    return found


def changed_lines(revision: str, paths: Sequence[Path]) -> dict[Path, list[Lines]]:
    """By resolved path, of the files below `paths` that differ from `revision`, the lines that are new or changed.

    Raises UsageError where there is no such revision, or no repository.
    """
    found: defaultdict[Path, list[Lines]] = defaultdict(list)
    for folder in dict.fromkeys(path if path.is_dir() else path.parent for path in paths):
        if not _repository(folder):
            raise UsageError(f"{folder} lies in no git repository, so nothing can have changed; leave out --diff.")
        if revision.startswith("-"):
            raise UsageError(f"{revision!r} is no revision; name a commit, a branch or a tag.")
        _git(folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", wrong=revision)
        top = Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
        diff = _git(folder, *"-c core.quotePath=false diff --unified=0 --no-color --no-ext-diff".split(),
                    "--src-prefix=a/", "--dst-prefix=b/", revision, "--", ".")  # fmt: skip
        for name, lines in _parsed(diff).items():
            found[(top / name).resolve()] += lines
    return found


def _parsed(diff: str) -> Mapping[str, list[Lines]]:
    found: defaultdict[str, list[Lines]] = defaultdict(list)
    name, in_head = "", False
    for line in diff.split("\n"):
        if line.startswith("diff --git "):
            name, in_head = "", True
        elif in_head and line.startswith("+++ b/"):
            name = line[len("+++ b/") :].rstrip("\t")
        elif match := _HUNK.match(line):
            in_head = False
            start, count = int(match[1]), int(match[2] or 1)
            if name and count:
                found[name].append(range(start, start + count))
    return found


def character_ranges(text: str, lines: Iterable[Lines]) -> tuple[tuple[int, int], ...]:
    """[start, end) in characters of runs of lines."""
    starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text)]
    spans = ((starts[min(run.start - 1, len(starts) - 1)], starts[min(run.stop - 1, len(starts) - 1)]) for run in lines)
    return tuple(span for span in spans if span[0] < span[1])


def _git(folder: Path, *arguments: str, wrong: str | None = None) -> str:
    """What git prints. wrong: a revision that is to blame where it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except OSError as missing:
        raise InputError(f"{folder} lies in a git repository, but git cannot be run; install git.") from missing
    if done.returncode and wrong is not None:
        raise UsageError(f"There is no revision {wrong!r} in this repository; name a commit, a branch or a tag.")
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise InputError(f"git cannot read the repository of {folder} ({said}); try `git status` there.")
    return done.stdout.decode("utf-8", "surrogateescape")
