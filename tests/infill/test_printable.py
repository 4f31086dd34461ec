"""Text that would control a terminal or a CI runner, made visible."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.printable import PrintableFormatter, json_text, one_line, plain, printable, visible

ATTACK = "\x1b[2J\x1b]0;title\x07 \x9b31m \u202eevil\u2066 a\rb \x7f \udc80"


def test_controls_are_visible() -> None:
    assert visible(ATTACK) == "␛[2J␛]0;title␇ <U+009B>31m <U+202E>evil<U+2066> a␍b ␡ <U+DC80>"
    assert visible("a\tb\r\nc\n é ✓") == "a\tb\r\nc\n é ✓"
    assert one_line("a\tb\r\nc") == "a␉b␍␊c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::error file=a::b", "\\::error file=a::b"),
        ("a\n \t::stop-commands::x", "a\n \t\\::stop-commands::x"),
        ("a ##[error]b ##vso[task]c", "a #\\#[error]b #\\#vso[task]c"),
        ("std::vector\n## [Unreleased]\n#[derive]", "std::vector\n## [Unreleased]\n#[derive]"),
    ],
)
def test_commands_for_a_ci_runner_are_text(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_json_is_exact_and_has_no_controls(text: str) -> None:
    written = json_text({"text": text})
    assert json.loads(written) == {"text": text} and visible(written) == written


def test_json_keeps_letters() -> None:
    assert json_text("é\x9b\u202e") == '"é\\u009b\\u202e"\n'


def test_a_line_is_neither_a_command_nor_several_lines() -> None:
    assert plain("::error::a\n::error::b\x1b[2J") == "\\::error::a␊::error::b␛[2J"


def test_a_record_of_a_log_cannot_control_a_terminal() -> None:
    record = logging.LogRecord("a", logging.WARNING, "a.py", 1, "%s was not read", (ATTACK,), None)
    assert PrintableFormatter("%(name)s: %(message)s").format(record) == f"a: {visible(ATTACK)} was not read"
