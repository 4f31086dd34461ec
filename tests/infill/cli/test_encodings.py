"""The encodings of source files: found, guessed or named, and the same when a file is written back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError, UsageError
from infill.cli import text_edits
from infill.cli.encodings import decode, encoding_named

CODE = "naïve = 'é'\nfor i in range(10):\n    print(i)\n"
LATIN = "é".encode("latin-1")


@pytest.mark.parametrize(
    ("content", "encoding", "is_guess"),
    [
        (CODE.encode(), "utf-8", False),
        (CODE.encode("utf-8-sig"), "utf-8", False),
        (CODE.encode("latin-1"), "iso8859-1", True),
        (CODE.encode("utf-16"), "utf-16-le", False),
        (b"\xfe\xff" + CODE.encode("utf-16-be"), "utf-16-be", False),
        (CODE.encode("utf-16-le"), "utf-16-le", True),
        (CODE.encode("utf-16-be"), "utf-16-be", True),
        (b"# -*- coding: cp1252 -*-\nx = '\x80'\n", "cp1252", False),
        (b"#!/usr/bin/python\n# vim: set fileencoding=koi8-r :\nx = '\xc1'\n", "koi8-r", False),
        (b"# coding: no-such-encoding\n" + LATIN, "iso8859-1", True),
        (b"# coding: punycode\n" + LATIN, "iso8859-1", True),
        (b"# coding: idna\n" + LATIN, "iso8859-1", True),
        (b"", "utf-8", False),
        (b"a\0b", "utf-8", False),
    ],
)
def test_the_encoding_of_a_file_is_found(content: bytes, encoding: str, is_guess: bool) -> None:
    decoded = decode(content, "f")
    assert (decoded.encoding, decoded.is_guess) == (encoding, is_guess)
    assert not decoded.text.startswith("\ufeff")
    assert decoded.encode(decoded.text) == content


@pytest.mark.parametrize("content", [b"\x7fELF\0\0\xff", b"\xff\xfe\0", b"\xe9\0\0"])
def test_what_is_not_text_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="f is not .* text .*--encoding"):
        decode(content, "f")


@given(st.text(), st.sampled_from(["utf-8", "utf-16", "utf-32", "utf-8-sig", "utf-16-le", "latin-1", "shift_jis"]))
def test_a_named_encoding_is_used_and_written_back(text: str, name: str) -> None:
    try:
        content = text.encode(name)
    except UnicodeEncodeError:
        return
    if content.decode(name) != text:  # such as a mark that is part of the text
        return
    try:
        decoded = decode(content, "f", encoding_named(name))
    except InputError as error:
        assert "would change" in str(error)
        return
    assert decoded.text == text.removeprefix("\ufeff") and decoded.encode(decoded.text) == content
    assert not decoded.is_guess


@pytest.mark.parametrize("name", ["no-such-encoding", "hex", "rot13", "a\0b", "", "idna", "punycode", "undefined"])
def test_an_unknown_encoding_is_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError, match="no encoding"):
        encoding_named(name)


@pytest.mark.parametrize("name", ["latin-1", "utf-16", "utf-16-be", "utf-8-sig", "cp1252"])
def test_a_file_keeps_its_encoding(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a.py"
    file.write_bytes(CODE.encode(name))
    source = text_edits.read_source(file)
    text_edits.write_in_place(source, source.text.replace("10", "été"), tmp_path)
    assert file.read_bytes() == CODE.replace("10", "été").encode(name)


def test_a_text_that_the_encoding_does_not_have_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_bytes(CODE.encode("latin-1"))
    source = text_edits.read_source(file)
    assert source.notice is not None and "Latin-1" in source.notice and "--encoding" in source.notice
    with pytest.raises(InputError, match="Latin-1 text, which has no '≤'; convert"):
        text_edits.write_in_place(source, source.text + "≤", tmp_path)
    assert file.read_bytes() == CODE.encode("latin-1")
