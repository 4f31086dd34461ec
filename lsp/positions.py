"""Columns of the protocol to indices of Python strings and back, in the encoding that client and server agreed on.

Source: LSP 3.17, Position: `character` counts code units of the position encoding. Must not know documents.
"""

from __future__ import annotations

from typing import Literal

Encoding = Literal["utf-8", "utf-16", "utf-32"]


def width(text: str, encoding: Encoding) -> int:
    """Code units of a text: bytes for UTF-8, 16-bit units for UTF-16, code points for UTF-32."""
    if encoding == "utf-32" or text.isascii():
        return len(text)
    if encoding == "utf-16":
        return len(text) + sum(character > "\uffff" for character in text)
    return sum(_utf8_width(character) for character in text)


def column_to_index(line: str, column: int, encoding: Encoding) -> int:
    """The index of `column` code units in `line`: at most the line's length; inside a character, its start."""
    if column <= 0:
        return 0
    if encoding == "utf-32" or line[:column].isascii():
        return min(column, len(line))
    units = 0
    for index, character in enumerate(line):
        units += _units(character, encoding)
        if units > column:
            return index
    return len(line)


def index_to_column(line: str, index: int, encoding: Encoding) -> int:
    """The code units before `index` of `line`."""
    return width(line[: max(0, index)], encoding)


def _units(character: str, encoding: Encoding) -> int:
    return _utf8_width(character) if encoding == "utf-8" else 1 + (character > "\uffff")


def _utf8_width(character: str) -> int:
    """A lone surrogate counts three bytes, as the character that stands for it does."""
    return 1 if character < "\x80" else 2 if character < "\u0800" else 3 if character <= "\uffff" else 4
