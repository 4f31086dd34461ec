"""Which language a file is, and how brackets, strings and comments are read in each."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infill.languages import LANGUAGES, detect, get, scan


@pytest.mark.parametrize(
    ("path", "first_line", "expected"),
    [
        ("a/b.py", "", "python"),
        ("stub.pyi", "", "python"),
        ("UPPER.PY", "", "python"),
        ("c:\\work\\x.ts", "", "typescript"),
        ("x.tsx", "", "tsx"),
        ("x.jsx", "", "javascript"),
        ("main.go", "", "go"),
        ("lib.rs", "", "rust"),
        ("A.java", "", "java"),
        ("x.c", "", "c"),
        ("x.h", "", "c"),
        ("x.h", "// -*- C++ -*-", "cpp"),
        ("x.h", "// -*- mode: C++; tab-width: 4 -*-", "cpp"),
        ("x.C", "", "cpp"),
        ("x.hpp", "", "cpp"),
        ("SConstruct", "", "python"),
        ("run", "#!/usr/bin/env python3", "python"),
        ("run", "#!/usr/bin/env -S node --flag", "javascript"),
        ("run", "\ufeff#!/usr/bin/python3.11 -u", "python"),
        ("run", "# vim: set ft=rust:", "rust"),
        ("run", "#!/bin/sh", None),
        ("run", "#!", None),
        ("notes.txt", "", None),
        ("", "", None),
        (None, "", None),
    ],
)
def test_detect(path, first_line, expected):
    assert detect(path, first_line) == expected


def test_every_language_has_a_grammar_that_knows_its_node_types():
    for language in LANGUAGES.values():
        grammar = language.grammar()
        assert grammar is not None, language.id
        known = {grammar.node_kind_for_id(n) for n in range(grammar.node_kind_count)}
        listed = (language.imports, language.strings, language.comments, language.blocks, language.statements)
        assert set(language.scopes).union(*listed) <= known, language.id


def test_get_of_an_unknown_language_is_none():
    assert get("cobol") is None and get(None) is None and get("") is None


def still_open(text, language):
    return "".join(bracket.char for bracket in scan(text, language).open)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("python", "x = foo('a(' # (\n, [{", "([{"),
        ("python", '"""(\n(""" + f(', "("),
        ("python", r"'\'(' + f(", "("),
        ("python", "x = foo(a, [\ndef f(a:\n", "("),
        ("javascript", "`a${ {b: ']'} } (` + [ // (", "["),
        ("javascript", "`a${b(", "${("),
        ("javascript", "x = /[\"(]/.test(y) / 2; {", "{"),
        ("javascript", "a = b / c; d = (e / f", "("),
        ("typescript", "<p>Don't</p>\n{", "{"),
        ("go", "`(\n` + '(' {", "{"),
        ("rust", "fn f<'a>(x: &'a str) { let c = '('; r#\"a\"(\"#;", "{"),
        ("rust", '"a(\n(" [', "["),
        ("java", '"""\n( " (\n""" + "(" {', "{"),
        ("c", "// don't (\nchar c = '('; /* ( \n ( */ [", "["),
        ("cpp", "auto x = 1'000'000; R\"d(()\" ()d\"; foo(", "("),
        (None, 'say "hi (" and don\'t (', "("),
    ],
)
def test_scan_leaves_out_strings_and_comments(language, text, expected):
    assert still_open(text, language) == expected


def test_scan_tells_what_holds_the_end():
    assert scan("x = 'abc", "python").inside == "'"
    assert scan('x = """abc\n', "python").inside == '"""'
    assert scan("x  # abc", "python").inside == "#"
    assert scan("`a${b}c", "javascript").inside == "`"
    assert scan("a /* b", "c").inside == "/*"
    assert scan("x = 'abc'", "python").inside == ""


def test_scan_reports_strays_mismatches_and_cut_off_strings():
    reading = scan("a) + f([)\nx = 'abc\ny", "python")
    assert [bracket.char for bracket in reading.stray] == [")"]
    assert [bracket.char for bracket in reading.skipped] == ["["]
    assert reading.unterminated == (14,)


SNIPPETS = st.lists(
    st.sampled_from([*"()[]{}`'\"#/\\\nRxé😀 ", "${", '"""', "//", "/*", "*/", "r#", "\r\n", "def f"]),
    max_size=30,
).map("".join)  # fmt: skip


@settings(deadline=None)
@given(SNIPPETS, st.sampled_from([*LANGUAGES, None]), st.data())
def test_a_scan_may_stop_and_resume_anywhere_between_tokens(text, language, data):
    cut = data.draw(st.integers(0, len(text)))
    cut = text.rfind("\n", 0, cut) + 1
    whole, part = scan(text, language), scan(text, language, cut)
    again = scan(text, language, None, part.resume, part.resume_open)
    assert (again.open, again.inside) == (whole.open, whole.inside)
