"""What git's configuration says about ignored files, read without running git: `core.excludesFile`, `core.ignoreCase`.

Reads the files of the system, the user and the repository, with what they include, as in git-config(1). Only small
regular files are read. Must not know what an ignore file contains.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar, cast

from engine.errors import InputError
from engine.files import read_small_file
from infill.git_patterns import Pattern

T = TypeVar("T")

CONFIG_BYTES = 1 << 20
POINTER_BYTES = 8 << 10  # of a `.git` file, and of `commondir`
MOST_INCLUDES = 10  # nested, as in git
MOST_INCLUDED, MOST_CONFIG_BYTES = 200, 4 << 20  # of all included files together
MOST_NAME = 4096  # bytes of a path
SYSTEM_FILES = ("/etc/gitconfig", "/usr/local/etc/gitconfig", "/opt/homebrew/etc/gitconfig")
_SECTION = re.compile(r'\[\s*([\w.-]+)(?:[ \t]+"((?:[^"\\\n]|\\.)*)")?\s*\]')
_NAME = re.compile(r"[A-Za-z][\w-]*")
_SPACES = re.compile(r"(?:\s|[#;][^\n]*)*")
_ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t", "b": "\b"}


class GitUnreadable(InputError):
    """A file of git that decides what is ignored cannot be read."""

    def __init__(self, file: Path, reason: object) -> None:
        super().__init__(f"{file} cannot be read ({reason}), so it is unknown what git ignores; correct that file.")


@dataclass
class IgnoreConfig:
    """excludes_file: None if it is not set. possible: files that it names under conditions that are not evaluated."""

    excludes_file: str | None = None
    possible: list[str] = field(default_factory=list)
    ignore_case: bool = False


@dataclass(frozen=True)
class GitFolder:
    """own: of this working tree; common: of the repository. The same except in a linked worktree."""

    own: Path
    common: Path

    @staticmethod
    def of(root: Path) -> GitFolder:
        """The folder that `.git` in `root` is or names. Raises GitUnreadable."""
        own = root / ".git"
        if own.is_file():
            own = root / _first_line(own).removeprefix("gitdir:").strip()
        pointer = own / "commondir"
        return GitFolder(own, own / _first_line(pointer) if pointer.is_file() else own)


def read_ignore_config(git: GitFolder) -> IgnoreConfig:
    """The configuration that applies in a working tree. Raises GitUnreadable."""
    reader = _Reader(git)
    for file in _users_files():
        reader.read(file)
    reader.read(git.common / "config")
    if reader.has_worktree_config:
        reader.read(git.own / "config.worktree")
    reader.take_environment()
    return reader.found


def expand_user(name: str) -> str:
    """A path in the configuration with its `~` or `~user` replaced."""
    return os.path.expanduser(name.removeprefix(":(optional)"))


def config_home() -> Path:
    """The folder of the user's `git/config` and `git/ignore`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "git"


def _users_files() -> Iterator[Path]:
    """The files of the system and the user, the weakest first."""
    if os.environ.get("GIT_CONFIG_NOSYSTEM", "").lower() not in ("1", "true", "yes", "on"):
        given = os.environ.get("GIT_CONFIG_SYSTEM")
        yield from (Path(given),) if given is not None else map(Path, SYSTEM_FILES)
    if (given := os.environ.get("GIT_CONFIG_GLOBAL")) is not None:
        yield Path(given)
    else:
        yield config_home() / "config"
        yield Path(os.path.expanduser("~/.gitconfig"))


class _Reader:
    """Reads files in order; later values replace earlier ones."""

    def __init__(self, git: GitFolder) -> None:
        self.git, self.found = git, IgnoreConfig()
        self.has_worktree_config = False
        self._included = self._bytes = 0

    def read(self, file: Path, depth: int = 0, is_certain: bool = True) -> None:
        """is_certain: whether the conditions for this file hold, rather than being unknown."""
        if depth > MOST_INCLUDES:
            raise GitUnreadable(file, "too many files include each other")
        self._bytes += _size(file)
        if self._bytes > MOST_CONFIG_BYTES:
            raise GitUnreadable(file, f"with the other configuration it has more than {MOST_CONFIG_BYTES:,} bytes")
        for key, value in _entries(file):
            section, _, name = key.rpartition(".")
            if name == "path" and (section == "include" or section.startswith("includeif.")):
                self._included += 1
                if self._included > MOST_INCLUDED:
                    raise GitUnreadable(file, f"the configuration includes more than {MOST_INCLUDED} files")
                condition = section.partition(".")[2]
                holds = True if section == "include" else self._holds(condition, file)
                if holds is not False:
                    target = file.parent / expand_user(_path(value, file))
                    self.read(target, depth + 1, is_certain and holds is True)
            else:
                self._take(key, value, file, is_certain)

    def take_environment(self) -> None:
        """The values of `GIT_CONFIG_COUNT`, as in git-config(1)."""
        count = os.environ.get("GIT_CONFIG_COUNT", "")
        for number in range(int(count) if count.isdecimal() and len(count) < 5 else 0):
            key = os.environ.get(f"GIT_CONFIG_KEY_{number}", "").lower()
            self._take(key, os.environ.get(f"GIT_CONFIG_VALUE_{number}", ""), Path("GIT_CONFIG_VALUE"), True)

    def _take(self, key: str, value: str | None, file: Path, is_certain: bool) -> None:
        if key == "core.excludesfile" and is_certain:
            self.found.excludes_file, self.found.possible = _path(value, file), []
        elif key == "core.excludesfile":
            self.found.possible.append(_path(value, file))
            if len(self.found.possible) > MOST_INCLUDED:
                raise GitUnreadable(file, f"it may name more than {MOST_INCLUDED} ignore files")
        elif key == "core.ignorecase":
            self.found.ignore_case = _is_true(value) or (self.found.ignore_case and not is_certain)
        elif key == "extensions.worktreeconfig":
            self.has_worktree_config = _is_true(value)

    def _holds(self, condition: str, file: Path) -> bool | None:
        """Whether the condition of an `includeIf` holds; None if that is not evaluated."""
        kind, _, pattern = condition.partition(":")
        if kind not in ("gitdir", "gitdir/i"):
            return None
        if len(pattern) > MOST_NAME:
            return False
        if pattern.startswith("./"):
            pattern = f"{file.parent}/{pattern[2:]}"
        pattern = expand_user(pattern)
        pattern = pattern if pattern.startswith("/") else f"**/{pattern}"
        pattern += "**" if pattern.endswith("/") else ""
        folders = {os.path.abspath(self.git.own), os.path.realpath(self.git.own)}
        patterns = {pattern, os.path.realpath(pattern.rstrip("*/")) + "/**"} if pattern.endswith("/**") else {pattern}
        ignore_case = kind == "gitdir/i"
        if ignore_case:
            folders = {os.fsdecode(os.fsencode(one).lower()) for one in folders}
        globs = [glob for one in patterns if (glob := Pattern.parse(one, ignore_case)) is not None]
        return any(glob.matches(folder.split("/")[1:], is_folder=True) for glob in globs for folder in folders)


def _path(value: str | None, file: Path) -> str:
    if value is None:
        raise GitUnreadable(file, "a path has no value")
    return value


def _size(file: Path) -> int:
    """In bytes; 0 if there is no file."""
    try:
        return os.stat(file).st_size
    except (OSError, ValueError):
        return 0


def _is_true(value: str | None) -> bool:
    return value is None or value.lower() in ("true", "yes", "on", "1")


def _entries(file: Path) -> tuple[tuple[str, str | None], ...]:
    """The keys and values of a file; empty if there is none. The key is lower case except for the subsection."""
    return cached_read(file, CONFIG_BYTES, True, _parse) or ()


def _parse(content: bytes) -> tuple[tuple[str, str | None], ...]:
    """Raises ValueError where git stops with "bad config line"."""
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff").replace("\r\n", "\n")
    found: list[tuple[str, str | None]] = []
    section, at = "", _end(_SPACES, text, 0)
    while at < len(text):
        if match := _SECTION.match(text, at):
            inner = match[2]
            section = match[1].lower() + ("" if inner is None else "." + re.sub(r"\\(.)", r"\1", inner))
        elif section and (match := _NAME.match(text, at)):
            value, end = _value(text, match.end())
            found.append((f"{section}.{match[0].lower()}", value))
            at = _end(_SPACES, text, end)
            continue
        else:
            raise ValueError(f"line {text.count(chr(10), 0, at) + 1} is not valid")
        at = _end(_SPACES, text, match.end())
    return tuple(found)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _value(text: str, at: int) -> tuple[str | None, int]:
    """The value after a name that ends at `at`, None without "=", and the end of its line."""
    line_end = text.find("\n", at) % (len(text) + 1)
    rest = text[at:line_end].lstrip(" \t")
    if not rest.startswith("="):
        if rest and rest[0] not in "#;":
            raise ValueError(f"line {text.count(chr(10), 0, at) + 1} is not valid")
        return None, line_end
    at = text.index("=", at) + 1
    value, kept, quoted = "", 0, False  # kept: the length of `value` without spaces at its end
    while at < len(text) and text[at] != "\n":
        character, at = text[at], at + 1
        if character == '"':
            quoted = not quoted
            continue
        if not quoted and character in "#;":
            at = text.find("\n", at) % (len(text) + 1)
            break
        if character == "\\":
            following, at = text[at : at + 1], at + 1
            if following == "\n":
                continue
            if following not in _ESCAPES:
                raise ValueError(f"line {text.count(chr(10), 0, at) + 1} is not valid")
            character, is_space = _ESCAPES[following], False
        else:
            is_space = not quoted and character.isspace()
        if value or not is_space:
            value += character
        kept = kept if is_space else len(value)
    if quoted:
        raise ValueError(f"line {text.count(chr(10), 0, at) + 1} has no closing quote")
    return value[:kept], at


def _first_line(file: Path) -> str:
    try:
        return os.fsdecode(read_small_file(file, POINTER_BYTES)).split("\n", 1)[0].strip()
    except (OSError, ValueError) as error:
        raise GitUnreadable(file, getattr(error, "strerror", None) or error) from error


def cached_read(file: Path, limit: int, follow_link: bool, parse: Callable[[bytes], T]) -> T | None:
    """`parse` of the content, remembered until the file changes; None if there is no file. Raises GitUnreadable.

    follow_link: whether `file` may be a symbolic link; otherwise one counts as no file. parse: may raise ValueError.
    """
    if str(file) == os.devnull:
        return None
    try:
        state = os.stat(file, follow_symlinks=follow_link)
        if stat.S_ISDIR(state.st_mode) or stat.S_ISLNK(state.st_mode):
            return None
        version = state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino, state.st_dev, state.st_mode
        return cast(T, _read_version(file, limit, follow_link, parse, version))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise GitUnreadable(file, getattr(error, "strerror", None) or error) from error


@lru_cache(maxsize=500)
def _read_version(
    file: Path, limit: int, follow_link: bool, parse: Callable[[bytes], object], version: tuple[int, ...]
) -> object:
    return parse(read_small_file(file, limit, follow_link))
