"""Comments at the end of a suggested line."""

from __future__ import annotations

import pytest

from infill.complete.comments import without_comment


@pytest.mark.parametrize(
    ("before", "text", "expected", "language"),
    [
        ("print(greet(", '"World"))  # Hello, World!', '"World"))', "python"),
        ("x = ", "1 // the first", "1", "javascript"),
        ("x := ", "1 // the first", "1", "go"),
        ("x = 1", "  # the first", "", "python"),
        ("x = 1\n", "# the first", "# the first", "python"),  # nothing but a comment
        ("x = 1  # the", " first # and more", " first # and more", "python"),
        ("x = '", "# no comment'", "# no comment'", "python"),
        ("x = '''\n", "a  # no comment", "a  # no comment", "python"),
        ("url = ", "'http://localhost'", "'http://localhost'", "javascript"),
        ("A = 1  # one\nB = ", "2  # two", "2  # two", "python"),  # like the line above
        ("# numbers\nB = ", "2  # two", "2", "python"),
        ("x = ", "1  # one", "1  # one", None),
    ],
)
def test_the_comment_after_code_is_cut(before: str, text: str, expected: str, language: str | None) -> None:
    assert without_comment(before, text, language) == expected
