"""The encoding of a source file: named by the user, by the file itself, or guessed.

Must not know files or terminals.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from engine.errors import InputError, UsageError

UTF_8, LATIN_1 = "utf-8", "iso8859-1"  # Python's names
LABELS = {LATIN_1: "Latin-1", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}
BOM = "\ufeff"
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WITH_MARK = {"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": UTF_8}  # names: the encoding without a mark
NOT_FOR_FILES = ("idna", "punycode")  # names of hosts; they take quadratic time
SAMPLE = 4096  # bytes in which zeros are counted
DECLARATION = re.compile(rb"^[^\n]*?coding[:=][ \t]*([-\w.]+)", re.ASCII)  # PEP 263


@dataclass(frozen=True)
class Decoded:
    """text: without byte order mark. is_guess: whether neither the user nor the file names the encoding."""

    text: str
    encoding: str = UTF_8
    has_mark: bool = False
    is_guess: bool = False

    def marked(self, text: str) -> str:
        """A text of this file, with the byte order mark as its first character if the file has one."""
        return BOM + text if self.has_mark else text

    def encode(self, text: str) -> bytes:
        """The bytes of the file with this text. Raises UnicodeEncodeError for one that the encoding does not have."""
        return self.marked(text).encode(self.encoding)


def encoding_named(name: str) -> str:
    """Python's name of an encoding of text; raises UsageError if there is none of this name."""
    try:
        "".encode(name)
        found = codecs.lookup(name).name
        if found in NOT_FOR_FILES:
            raise LookupError(name)
        return found
    except (LookupError, ValueError) as error:
        raise UsageError(
            f"There is no encoding {name!r}; use utf-8, latin-1, utf-16 or another of Python's."
        ) from error


def label(encoding: str) -> str:
    """The usual name of an encoding."""
    return LABELS.get(encoding, encoding.upper())


def decode(content: bytes, name: str, encoding: str | None = None) -> Decoded:
    """The text of a file. name: for the error. encoding: from `encoding_named`; None to find it.

    Raises InputError if the content is not text, or not in the encoding.
    """
    marked = next((marked for mark, marked in MARKS if content.startswith(mark)), None)
    if encoding is None:
        chosen = marked or _guess(content)
    elif encoding in WITH_MARK:
        chosen = marked or WITH_MARK[encoding]
    else:
        chosen = encoding
    is_guess = encoding is None and marked is None and chosen not in (UTF_8, _declared(content))
    try:
        text = content.decode(chosen)
    except UnicodeError as error:
        line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise InputError(
            f"{name} is not {label(chosen)} text (line {line}); name its encoding with --encoding, or convert it to "
            "UTF-8."
        ) from error
    decoded = Decoded(text.removeprefix(BOM), chosen, text.startswith(BOM), is_guess)
    if not _is_exact(decoded, content):
        raise InputError(f"{name} would change if it was written as {label(chosen)}; convert it to UTF-8 first.")
    return decoded


def _is_exact(decoded: Decoded, content: bytes) -> bool:
    try:
        return decoded.encode(decoded.text) == content
    except UnicodeError:
        return False


def _guess(content: bytes) -> str:
    if len(content) % 2 == 0 and (wide := _utf_16(content[:SAMPLE])) is not None:
        return wide
    try:
        content.decode(UTF_8)
    except UnicodeDecodeError:
        return UTF_8 if b"\0" in content else _declared(content) or LATIN_1
    return UTF_8


def _utf_16(sample: bytes) -> str | None:
    """UTF-16 without a mark, if most of the high bytes are zero, as in code, and hardly any of the low ones."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    for high, low, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if high > len(sample) // 4 and low <= len(sample) // 64:
            return name
    return None


def _declared(content: bytes) -> str | None:
    """The encoding in a comment of the first two lines."""
    for line in content.split(b"\n", 2)[:2]:
        if (found := DECLARATION.match(line)) is not None:
            try:
                return encoding_named(found[1].decode("ascii"))
            except UsageError:
                return None
    return None
