"""Which files a repository ignores, as in gitignore(5), without running git.

The repository may be hostile: only small regular files are read. A file that decides what is ignored and cannot be read
raises GitUnreadable, so that nobody mistakes "unknown" for "not ignored". The index is not read: a file that is both
ignored and committed counts as ignored. Must not know why a caller asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infill.git_config import GitFolder, GitUnreadable, cached_read, config_home, expand_user, read_ignore_config
from infill.git_patterns import MOST_LEVELS, IgnoreRules

FILE_BYTES = 128 << 10  # of an ignore file
PATH_BYTES = 256 << 10  # of all ignore files that apply to a path
BOM = b"\xef\xbb\xbf"
FolderVerdicts = dict[tuple[Path, Path], str | None]  # the ignore file by repository and folder


@dataclass(frozen=True)
class _Source:
    """An ignore file for the paths below the level `depth` of the repository."""

    file: Path
    depth: int = 0
    follow_link: bool = True


def repository_of(path: Path) -> Path | None:
    """The innermost folder above `path` that is a repository."""
    return next((folder for folder in path.parents if (folder / ".git").exists()), None)


def ignored_by(path: Path, is_folder: bool = False, known: FolderVerdicts | None = None) -> str | None:
    """The name of the ignore file that ignores this file or folder; None if there is none or no repository.

    As in gitignore(5): the last matching pattern decides; deeper files before shallower ones, then the repository's
    `info/exclude`, then the user's `core.excludesFile`; nothing in an ignored folder can be re-included.

    path: absolute and normalized; links in it are not followed. known: keeps the verdicts on folders between calls, as
    long as the files do not change. Raises GitUnreadable, and OSError if a folder cannot be read.
    """
    known = {} if known is None else known
    for root in _repositories(path):
        names = path.relative_to(root).parts
        if len(names) > MOST_LEVELS:
            raise GitUnreadable(path, f"it is nested in more than {MOST_LEVELS} folders")
        for end in range(1, len(names)):
            key = root, root.joinpath(*names[:end])
            if key not in known:
                known[key] = _itself_ignored_by(root, names[:end], is_folder=True)
            if source := known[key]:
                return source
        if source := _itself_ignored_by(root, names, is_folder):
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


def _itself_ignored_by(root: Path, path: Sequence[str], is_folder: bool) -> str | None:
    """Otherwise as `ignored_by`, for a file or folder of the repository `root` whose folders are not ignored."""
    git = GitFolder.of(root)
    config = read_ignore_config(git)
    chosen = str(config_home() / "ignore") if config.excludes_file is None else config.excludes_file
    sources = [_Source(root / expand_user(name)) for name in (*config.possible, chosen) if name]
    sources.append(_Source(git.common / "info" / "exclude"))
    sources += [_Source(root.joinpath(*path[:depth], ".gitignore"), depth, False) for depth in range(len(path))]
    names = _bytewise(path, config.ignore_case)
    found: list[tuple[_Source, bool]] = []
    size = 0
    for source in sources:
        parse = _parse_without_case if config.ignore_case else _parse
        rules = cached_read(source.file, FILE_BYTES, source.follow_link, parse)
        if rules is None:
            continue
        size += rules.size
        if size > PATH_BYTES:
            raise GitUnreadable(source.file, f"with the other ignore files it has more than {PATH_BYTES:,} bytes")
        if (verdict := rules.verdict(names[source.depth :], is_folder)) is not None:
            found.append((source, verdict))
    if not found:
        return None
    source, is_ignored = found[-1]
    return source.file.name if is_ignored else None


def _bytewise(path: Sequence[str], ignore_case: bool) -> tuple[str, ...]:
    """Names with one character per byte, because git compares bytes."""
    encoded = map(os.fsencode, path)
    return tuple((name.lower() if ignore_case else name).decode("latin-1") for name in encoded)


def _parse(content: bytes) -> IgnoreRules:
    return IgnoreRules.parse(content.removeprefix(BOM).decode("latin-1").split("\n"))


def _parse_without_case(content: bytes) -> IgnoreRules:
    return _parse(content.lower().replace(b"[:upper:]", b"[:alpha:]").replace(b"[:lower:]", b"[:alpha:]"))
