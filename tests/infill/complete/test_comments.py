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
        ("import a  # noqa: F401\n\nimport ", "b  # noqa: F401", "b  # noqa: F401", "python"),  # as an earlier line
        ("import a  # noqa: F401\n\nimport ", "b  # noqa", "b", "python"),
        ("# noqa: F401\n\nimport ", "b  # noqa: F401", "b", "python"),
        ("a = <p>", "http://a.b</p>;", "http://a.b</p>;", "tsx"),
        ("a = <p>", "see http://a.b</p>", "see http://a.b</p>", "javascript"),
        ("x = f'{d[", "'#']}'", "'#']}'", "python"),
        ("f();", "// the first", "", "c"),
        ("f() //nolint:errcheck\n\ng(", ") //nolint:errcheck", ") //nolint:errcheck", "go"),
    ],
)
def test_the_comment_after_code_is_cut(before: str, text: str, expected: str, language: str | None) -> None:
    assert without_comment(before, text, language) == expected


@pytest.mark.parametrize(
    ("comment", "stays"), [("#", True), ("# type", True), ("# type: ignore", True), ("# The", False)]
)
def test_a_growing_comment_stays_while_it_begins_like_an_earlier_one(comment: str, stays: bool) -> None:
    text = f"b()  {comment}"
    expected = text if stays else "b()"
    assert without_comment("x = a()  # type: ignore\n\ny = ", text, "python", growing=True) == expected
