"""Converts the protocol's columns to indices of Python strings and back, in the negotiated encoding.

Source: LSP 3.17, Position: `character` counts code units of the position encoding. Must not know documents.
"""

from __future__ import annotations

import re
from typing import Literal

Encoding = Literal["utf-8", "utf-16", "utf-32"]
_BYTE = re.compile("[\udc80-\udcff]")


def width(text: str, encoding: Encoding) -> int:
    """The code units of a text: bytes in UTF-8, 16-bit units in UTF-16, or characters.

    In UTF-8, U+DC80 to U+DCFF are one byte that was not UTF-8 (`transport`), and other lone surrogates are three.
    """
    if encoding == "utf-32" or text.isascii():
        return len(text)
    if encoding == "utf-16":
        return len(text.encode("utf-16-le", "surrogatepass")) // 2
    try:
        return len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return len(_BYTE.sub("x", text).encode("utf-8", "surrogatepass"))


def column_to_index(line: str, column: int, encoding: Encoding) -> int:
    """The index after `column` code units of `line`, at most its length; inside a character, that character's start."""
    low, high = 0, min(max(0, column), len(line))
    if encoding == "utf-32" or line[:high].isascii():
        return high
    left = column
    while low < high:
        middle = (low + high + 1) // 2
        units = width(line[low:middle], encoding)
        if units <= left:
            low, left = middle, left - units
        else:
            high = middle - 1
    return low


def index_to_column(line: str, index: int, encoding: Encoding) -> int:
    """The number of code units before `index` in `line`, at most that of the whole line."""
    return width(line[: max(0, index)], encoding)
