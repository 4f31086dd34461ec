"""Text from code, file names, models and servers, made safe to print: it cannot control the terminal or a CI runner.

Must not know where the text comes from or where it is printed.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

_CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional: https://unicode.org/reports/tr9/
    "\u2028\u2029\ufeff\ud800-\udfff]"
    "|\r(?!\n)"
)
_LINE_ENDS = {ord("\n"): "␊", ord("\r"): "␍", ord("\t"): "␉"}
_COMMAND = re.compile(
    r"^([^\S\n]*)(?=::)|(?<=#)(?=#\w*\[)", re.MULTILINE
)  # GitHub's `::error` and `##[error]`, `##vso[`


def visible(text: str) -> str:
    """The text with a symbol for each control character. Tabs and the line ends "\\n" and "\\r\\n" stay."""
    return _CONTROLS.sub(lambda match: _symbol(match[0]), text)


def one_line(text: str) -> str:
    """`visible`, with symbols for tabs and line ends too: for names and messages within a line."""
    return visible(text.translate(_LINE_ENDS))


def printable(text: str) -> str:
    """`visible`, with a backslash in what a CI runner would read as a command, such as `::error` at a line start."""
    return _COMMAND.sub(r"\1\\", visible(text))


def plain(text: str) -> str:
    """A line that neither controls the terminal nor is a command: `printable` and `one_line`."""
    return printable(one_line(text))


class PrintableFormatter(logging.Formatter):
    """For logs, whose records may quote names and messages."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def json_text(value: Any, indent: int | None = None) -> str:
    """A line of JSON, or several with `indent`. Letters of all alphabets stay, control characters are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def _symbol(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the block Control Pictures of Unicode
    return "␡" if code == 0x7F else f"<U+{code:04X}>"
