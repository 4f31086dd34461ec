"""Which files a repository ignores, as in gitignore(5), without running git.

The repository may be hostile: only small regular files are read. A file that decides what is ignored and cannot be read
raises GitUnreadable, so that nobody mistakes "unknown" for "not ignored". The index is not read: a file that is both
ignored and committed counts as ignored. Must not know why a caller asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infill.git_config import GitFolder, GitUnreadable, cached_read, config_home, expand_user, read_ignore_config
from infill.git_patterns import MOST_LEVELS, IgnoreRules

FILE_BYTES = 128 << 10  # of an ignore file
PATH_BYTES = 256 << 10  # of all ignore files that apply to a path
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class _Source:
    """An ignore file for the paths below the level `depth` of the repository."""

    file: Path
    depth: int = 0
    follow_link: bool = True


class Verdicts:
    """What was read and decided about folders, for several paths, as long as no file changes."""

    def __init__(self) -> None:
        self._repositories: dict[Path, _Repository] = {}

    def repository(self, root: Path) -> _Repository:
        if root not in self._repositories:
            self._repositories[root] = _Repository(root)
        return self._repositories[root]


def repository_of(path: Path) -> Path | None:
    """The innermost folder above `path` that is a repository."""
    return next((folder for folder in path.parents if (folder / ".git").exists()), None)


def ignored_by(path: Path, is_folder: bool = False, known: Verdicts | None = None) -> str | None:
    """The name of the ignore file that ignores this file or folder; None if there is none or no repository.

    As in gitignore(5): the last matching pattern decides; deeper files before shallower ones, then the repository's
    `info/exclude`, then the user's `core.excludesFile`; nothing in an ignored folder can be re-included.

    path: absolute and normalized; links in it are not followed. known: of earlier calls. Raises GitUnreadable, and
    OSError if a folder cannot be read.
    """
    known = known or Verdicts()
    for root in _repositories(path):
        names = path.relative_to(root).parts
        if len(names) > MOST_LEVELS:
            raise GitUnreadable(path, f"it is nested in more than {MOST_LEVELS} folders")
        if source := known.repository(root).ignored_by(names, is_folder):
            return source
    return None


def _repositories(path: Path) -> Iterator[Path]:
    """The folders above `path` with `.git`, up to the first one that is certainly a repository."""
    for folder in path.parents:
        git = folder / ".git"
        if git.is_file():
            yield folder
            return
        if git.is_dir():
            yield folder
            if (git / "HEAD").exists():
                return


class _Repository:
    """The ignore files of a repository, each read at most once. Raises GitUnreadable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        git = GitFolder.of(root)
        config = read_ignore_config(git)
        self.ignore_case = config.ignore_case
        chosen = str(config_home() / "ignore") if config.excludes_file is None else config.excludes_file
        files = [root / expand_user(name) for name in (*config.possible, chosen) if name]
        self.common = self._read([_Source(file) for file in (*files, git.common / "info" / "exclude")])
        self._inner: dict[tuple[str, ...], list[tuple[_Source, IgnoreRules]]] = {}  # by folder
        self._folders: dict[tuple[str, ...], str | None] = {}  # the verdicts

    def ignored_by(self, path: tuple[str, ...], is_folder: bool) -> str | None:
        """path: the names from the root."""
        for end in range(1, len(path)):
            folder = path[:end]
            if folder not in self._folders:
                self._folders[folder] = self._itself_ignored_by(folder, is_folder=True)
            if source := self._folders[folder]:
                return source
        return self._itself_ignored_by(path, is_folder)

    def _itself_ignored_by(self, path: tuple[str, ...], is_folder: bool) -> str | None:
        """Otherwise as `ignored_by`, for a file or folder whose folders are not ignored."""
        names = _bytewise(path, self.ignore_case)
        size = sum(rules.size for _, rules in self.common)
        found = list(self.common)
        for depth in range(len(path)):
            folder = path[:depth]
            if folder not in self._inner:
                source = _Source(self.root.joinpath(*folder, ".gitignore"), depth, follow_link=False)
                self._inner[folder] = self._read([source])
            found += self._inner[folder]
            size += sum(rules.size for _, rules in self._inner[folder])
            if size > PATH_BYTES:
                reason = f"with the other ignore files it has more than {PATH_BYTES:,} bytes"
                raise GitUnreadable(self.root.joinpath(*folder, ".gitignore"), reason)
        for source, rules in reversed(found):
            if (verdict := rules.verdict(names[source.depth :], is_folder)) is not None:
                return source.file.name if verdict else None
        return None

    def _read(self, sources: Iterable[_Source]) -> list[tuple[_Source, IgnoreRules]]:
        """The rules of the files that exist."""
        parse = _parse_without_case if self.ignore_case else _parse
        read = [(one, cached_read(one.file, FILE_BYTES, one.follow_link, parse)) for one in sources]
        return [(source, rules) for source, rules in read if rules is not None]


def _bytewise(path: Sequence[str], ignore_case: bool) -> tuple[str, ...]:
    """Names with one character per byte, because git compares bytes."""
    encoded = map(os.fsencode, path)
    return tuple((name.lower() if ignore_case else name).decode("latin-1") for name in encoded)


def _parse(content: bytes, ignore_case: bool = False) -> IgnoreRules:
    return IgnoreRules.parse(content.removeprefix(BOM).decode("latin-1").split("\n"), ignore_case)


def _parse_without_case(content: bytes) -> IgnoreRules:
    return _parse(content, ignore_case=True)
