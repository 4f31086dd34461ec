"""Patterns of paths as in gitignore(5).

Matching takes time proportional to the product of the lengths of name and pattern, whatever the pattern is. Must not
know files.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

MOST_LEVELS = 100  # of a path, that are checked
POSIX_CLASSES = {
    "alnum": "09AZaz",
    "alpha": "AZaz",
    "blank": "\t\t  ",
    "cntrl": "\0\x1f\x7f\x7f",
    "digit": "09",
    "graph": "!~",
    "lower": "az",
    "print": " ~",
    "punct": "!/:@[`{~",
    "space": "\t\r  ",
    "upper": "AZ",
    "xdigit": "09AFaf",
}  # ranges: first and last character of each


class _Star:
    """Any number of characters, or of folders."""


@dataclass(frozen=True)
class _Class:
    """A set of characters. ranges: first and last character of each."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False

    def __contains__(self, character: object) -> bool:
        return any(first <= character <= last for first, last in self.ranges) != self.negated  # type: ignore[operator]


STAR = _Star()
ANY = _Class((), negated=True)
Token = _Star | _Class | str


class _Name:
    """The pattern of one file or folder name. It contains the names that match."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        fixed = [isinstance(token, str) for token in tokens]
        start = fixed.index(False) if False in fixed else len(tokens)
        end = fixed[::-1].index(False) if False in fixed else 0
        self._start = "".join(map(str, tokens[:start]))
        self._end = "".join(map(str, tokens[len(tokens) - end :]))
        self._is_fixed = start == len(tokens)

    def __contains__(self, name: object) -> bool:
        if self._is_fixed:
            return name == self._start
        assert isinstance(name, str)
        return name.startswith(self._start) and name.endswith(self._end) and _matches(self.tokens, name)


@dataclass(frozen=True)
class Pattern:
    """One line of an ignore file. ways: lists of patterns of names; a path matches if it matches one of them.

    A pattern that is not anchored is one name, and matches at every level.
    """

    ways: tuple[tuple[_Name | _Class | _Star, ...], ...]
    is_anchored: bool
    only_folders: bool
    is_negated: bool

    @staticmethod
    def parse(line: str, ignore_case: bool = False) -> Pattern | None:
        """None for an empty line, a comment, or a line that cannot match anything.

        ignore_case: as git's wildmatch.c: for names in lower case. A letter counts in both cases, except that a capital
        after a backslash, or alone in a class, matches nothing.
        """
        line = _without_trailing_spaces(line.removesuffix("\r"))
        if not line or line.startswith("#"):
            return None
        negated = line.startswith("!")
        only_folders = line.endswith("/")  # also after a backslash, which then escapes nothing
        text = line[negated:].removesuffix("/")
        tokens = _tokens(text, ignore_case)
        if tokens is None:
            return None
        anchored = "/" in text
        tokens = tokens[text.startswith("/") :]  # an escaped one stays, and matches nothing
        if not tokens:
            return None
        ways = _ways(tokens, _plain_length(text.removeprefix("/"))) if anchored else [tokens]
        return Pattern(tuple(_steps(way, anchored) for way in ways), anchored, only_folders, negated)

    def matches(self, path: Sequence[str], is_folder: bool) -> bool:
        """Whether it matches this file or folder itself. path: names, from the folder of the ignore file."""
        if self.only_folders and not is_folder:
            return False
        names = path if self.is_anchored else path[-1:]
        return any(_matches(steps, names) for steps in self.ways)


@dataclass(frozen=True)
class IgnoreRules:
    """The patterns of one ignore file. size: in characters."""

    patterns: tuple[Pattern, ...]
    size: int = 0

    @staticmethod
    def parse(lines: Iterable[str], ignore_case: bool = False) -> IgnoreRules:
        """Skips lines that are not patterns. ignore_case: as in `Pattern.parse`."""
        lines = tuple(lines)
        patterns = tuple(pattern for line in lines if (pattern := Pattern.parse(line, ignore_case)) is not None)
        return IgnoreRules(patterns, sum(map(len, lines)))

    def verdict(self, path: Sequence[str], is_folder: bool) -> bool | None:
        """Whether the last matching pattern ignores this file or folder itself; None if no pattern matches."""
        for pattern in reversed(self.patterns):
            if pattern.matches(path, is_folder):
                return not pattern.is_negated
        return None

    def verdict_on_file(self, path: Sequence[str]) -> bool | None:
        """Otherwise as `verdict`, for a file, which is ignored if one of its folders is.

        A path of more than MOST_LEVELS names counts as ignored.
        """
        if len(path) > MOST_LEVELS:
            return True
        found = None
        for end in range(1, len(path) + 1):
            verdict = self.verdict(path[:end], end < len(path))
            if verdict:
                return True
            found = found if verdict is None else verdict
        return found


def _matches(pattern: Sequence[Container[str] | _Star], items: Sequence[str]) -> bool:
    """Whether the whole sequence matches.

    After a mismatch only the last star takes one more item: what an earlier star took never has to change.
    """
    at = done = after_star = retry = 0
    while done < len(items):
        token = pattern[at] if at < len(pattern) else ()
        if isinstance(token, _Star):
            at += 1
            after_star, retry = at, done
        elif items[done] in token:
            at, done = at + 1, done + 1
        elif after_star:
            retry += 1
            at, done = after_star, retry
        else:
            return False
    return all(token is STAR for token in pattern[at:])


def _plain_length(text: str) -> int:
    """The number of characters before the first special one."""
    return next((at for at, character in enumerate(text) if character in "*?[\\"), len(text))


def _tokens(text: str, ignore_case: bool) -> list[Token] | None:
    """The tokens of a pattern, with "/" between names; None if it ends within an escape or a character class."""
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        character, at = text[at], at + 1
        if character == "*":
            tokens.append(STAR)
        elif character == "?":
            tokens.append(ANY)
        elif character == "[":
            found = _character_class(text, at, ignore_case)
            if found is None:
                return None
            token, at = found
            tokens.append(token)
        elif character == "\\":
            if at == len(text):
                return None
            tokens.append(text[at])
            at += 1
        else:
            tokens.append(character.lower() if ignore_case and character.isascii() else character)
    return tokens


def _character_class(text: str, at: int, ignore_case: bool) -> tuple[_Class, int] | None:
    """The class whose "[" is before `at`, and the end of it. None if it is not closed, or names an unknown class."""
    ranges: list[tuple[str, str]] = []
    negated = text[at : at + 1] in ("!", "^")
    at += negated
    first_at, low = at, ""
    while at < len(text):
        character, at = text[at], at + 1
        if character == "]" and at - 1 > first_at:
            return _Class(tuple(ranges), negated), at
        if character == "[" and text[at : at + 1] == ":" and text[(end := text.find("]", at + 1)) - 1 : end] == ":":
            bounds = POSIX_CLASSES.get(text[at + 1 : end - 1])
            if bounds is None:
                return None
            for first, last in zip(bounds[::2], bounds[1::2], strict=True):
                ranges += _range(first, last, ignore_case)
            at, low = end + 1, ""
            continue
        is_range = character == "-" and low and text[at : at + 1] not in ("", "]")
        if is_range:
            character, at = text[at], at + 1
        if character == "\\":
            if at == len(text):
                return None
            character, at = text[at], at + 1
        ranges += _range(low, character, ignore_case) if is_range else [(character, character)]
        low = "" if is_range else character
    return None


def _range(first: str, last: str, ignore_case: bool) -> list[tuple[str, str]]:
    """The range, with the small letters for the capitals in it."""
    if not ignore_case:
        return [(first, last)]
    low, high = max(first, "A"), min(last, "Z")
    return [(first, last), *([(low.lower(), high.lower())] if low <= high else [])]


def _ways(tokens: list[Token], plain: int) -> list[list[Token]]:
    """The patterns that an anchored one means. plain: the number of characters before the first special one.

    Git compares these by themselves. So `**/` after them means any folders, as at the start of a name, also in the
    middle of one: `a**/b` is `ab` or `a*/**/b`.
    """
    end = next((at for at in range(plain, len(tokens)) if tokens[at] is not STAR), len(tokens))
    if not plain or tokens[plain - 1] == "/" or end < plain + 2 or tokens[end:][:1] != ["/"]:
        return [tokens]
    return [tokens[:plain] + tokens[end + 1 :], [*tokens[:plain], STAR, "/", STAR, STAR, *tokens[end:]]]


def _steps(tokens: Sequence[Token], anchored: bool) -> tuple[_Name | _Class | _Star, ...]:
    parts = _split(tokens) if anchored else [tokens]
    steps: list[_Name | _Class | _Star] = [
        STAR if anchored and len(part) > 1 and all(token is STAR for token in part) else _Name(part) for part in parts
    ]
    if steps[-1] is STAR:  # the content of a folder, but not the folder
        steps.append(ANY)
    return tuple(steps)


def _split(tokens: Sequence[Token]) -> list[list[Token]]:
    """The tokens of each name."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token == "/":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _without_trailing_spaces(line: str) -> str:
    """An escaped space stays."""
    bare = line.rstrip(" ")
    escapes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if escapes % 2 and len(bare) < len(line) else bare
