"""Detection of a file's language, and whether the grammars have the node types of the table."""

import pytest

from infill.code.languages import LANGUAGES, detect, get


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


def test_every_grammar_has_the_node_types_of_the_table():
    for language in LANGUAGES.values():
        grammar = language.grammar()
        assert grammar is not None, language.id
        known = {grammar.node_kind_for_id(n) for n in range(grammar.node_kind_count)}
        listed = (language.imports, language.strings, language.comments, language.blocks, language.statements)
        assert set(language.scopes).union(*listed) <= known, language.id


def test_an_unknown_language_is_none():
    assert get("cobol") is None and get(None) is None and get("") is None
