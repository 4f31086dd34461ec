"""Syntax trees in character offsets, and what they say about a cursor, marked here by «|»."""

import sys
import threading
import time
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infill.code import syntax
from infill.code.languages import LANGUAGES
from infill.code.syntax import Span, error_nodes, error_score, parse
from tests.cpu_time import takes_less
from tests.infill.marked import at

UGLY = st.text(st.sampled_from("x(\n\t =é😀\ud800\udc00\r\f'\":#{}1\x00"), max_size=60)


def test_an_unknown_language_or_a_huge_text_has_no_tree():
    assert parse("x", None) is None
    assert parse("x", "cobol") is None
    assert parse("x" * (syntax.MAX_PARSE_CHARS + 1), "python") is None


@given(UGLY, st.sampled_from(sorted(LANGUAGES)))
def test_any_text_parses_and_every_node_lies_within_it(text, language):
    tree = parse(text, language)
    for span in error_nodes(tree):
        assert 0 <= span.start <= span.end <= len(text)
    for offset in range(len(text) + 1):
        assert tree._character(tree.byte(offset)) == offset
    for offset in (0, len(text) // 2, len(text)):
        syntax.in_string(tree, offset)
        syntax.in_comment(tree, offset)


@given(st.integers(0, 3000), st.sampled_from(["é", "😀", "\ud800", "x"]))
@settings(max_examples=25)
def test_offsets_count_characters_far_into_a_text(length, character):
    text = "#" + character * length + "\nx = = 1\n"
    (error,) = error_nodes(parse(text, "python"))
    assert text[error.start : error.end] == "="


@given(UGLY, UGLY, st.data())
def test_a_replaced_tree_is_the_tree_of_the_new_text(text, replacement, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    edited = parse(text, "javascript").replaced(start, end, replacement)
    assert edited.text == text[:start] + replacement + text[end:]
    if not edited.root.has_error:
        assert str(edited.root) == str(parse(edited.text, "javascript").root)


@given(UGLY, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9), UGLY), max_size=5))
def test_edits_apply_one_after_the_other(text, edits):
    tree, expected = parse(text, "javascript"), text
    for start, length, replacement in edits:
        expected = expected[:start] + replacement + expected[start + length :]
    edited = tree.edited([(start, start + length, replacement) for start, length, replacement in edits])
    assert edited.text == expected
    fresh = parse(expected, "javascript")
    if not fresh.root.has_error:
        assert str(edited.root) == str(fresh.root)


def test_after_edits_every_node_has_its_position():
    def positions(tree):
        found, pending = [], [tree.root]
        while pending:
            node = pending.pop()
            found.append((node.type, node.start_byte, node.end_byte, node.start_point, node.end_point))
            pending.extend(node.children)
        return found

    text = "ü = '😀'\r\ndef f(a):\n    return a\n\nf(1)\n"
    tree, edits = parse(text, "python"), []
    for old, new in (
        ("return a", "é = [\n1,\n'😀']"),
        ("']", "'\n]\n    return é"),
        ("ü", "# 漢\nö"),
        ("\n\nf", "\nf"),
    ):
        start = text.index(old)
        edits.append((start, start + len(old), new))
        text = text.replace(old, new, 1)
    edited = tree.edited(edits)
    assert edited.text == text == "# 漢\nö = '😀'\r\ndef f(a):\n    é = [\n1,\n'😀'\n]\n    return é\nf(1)\n"
    assert not edited.root.has_error
    assert positions(edited) == positions(parse(text, "python"))


def test_the_text_of_a_node():
    tree = parse("x = 'é😀'\nclass Ünit: pass\n", "python")
    assert [tree.part(node) for node in tree.root.children] == ["x = 'é😀'", "class Ünit: pass"]


@pytest.mark.parametrize("lines", [100, 10_000])
def test_parsed_texts_do_not_leak(lines: int) -> None:
    text = "value = compute(first, second)\n" * lines
    tree = parse(text, "python")
    assert tree

    def parse_often() -> None:
        for number in range(10):
            parse(f"{text}{number}\n", "python")
            tree.replaced(0, 5, f"value_{number}")

    tracemalloc.start()
    try:
        parse_often()
        before = tracemalloc.get_traced_memory()[0]
        parse_often()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_other_threads_run_while_a_long_text_is_parsed():
    """A parser that held the GIL would block the language server."""
    started, turns, ended, enough = threading.Event(), [], threading.Event(), threading.Event()

    def parse_long_text():
        started.set()
        with suppress(syntax.ParsingStopped):
            parse("def f(a, b):\n    return [a, b, 'hello']\n" * 50_000, "python", enough.is_set)
        ended.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        thread = threading.Thread(target=parse_long_text)
        thread.start()
        started.wait()
        while not ended.is_set() and len(turns) <= 20:
            turns.append(time.sleep(0))
        enough.set()
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(turns) > 20


def test_error_nodes_and_score():
    assert error_nodes(parse("x = 1\n", "python")) == ()
    missing = parse("def f(:\n  pass\n", "python")
    assert error_nodes(missing) == (Span(6, 6),)
    tree = parse("é = (1, 2\ny = = 2\n", "python")
    score = error_score(tree)
    assert score.errors >= 1 and score.covered > 0
    assert error_score(tree, Span(0, len(tree.text))).covered == 0


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("python", "import a\nif T:\n    from b import (c,\n  d)\ndef f():\n    import no\n",
         ["import a", "from b import (c,\n  d)"]),
        ("typescript", "import {a} from 'b';\nlet x = 1", ["import {a} from 'b';"]),
        ("go", 'package p\nimport (\n"fmt"\n)\n', ['import (\n"fmt"\n)']),
        ("rust", "use a::{b, c};\nextern crate d;\n", ["use a::{b, c};", "extern crate d;"]),
        ("java", "package p;\nimport a.b;\nclass A {}", ["import a.b;"]),
        ("c", "#ifndef A\n#include <a.h>\n#endif\n", ["#include <a.h>"]),
        ("cpp", '#include "a"\nusing namespace std;\n', ['#include "a"', "using namespace std;"]),
    ],
)  # fmt: skip
def test_imports(language, text, expected):
    assert [text[slice(*span)] for span in syntax.imports(parse(text, language))] == expected


@pytest.mark.parametrize(
    ("language", "marked", "string", "comment"),
    [
        ("python", "x = 'a|b'", True, False),
        ("python", "x = |'ab'", False, False),
        ("python", "x = 'ab'|", False, False),
        ("python", "x = f'a{b|}'", False, False),
        ("python", "x = f(  # ab|\n)", False, True),
        ("python", "x = 1  # ab|", False, True),
        ("python", "x = 1  # ab\n|y", False, False),
        ("python", "print('ab|\n", True, False),
        ("javascript", "`a${b|}`", False, False),
        ("javascript", "`a|${b}`", True, False),
        ("c", "/* a| */ int x;", False, True),
        ("c", "/* a */| int x;", False, False),
        ("rust", "// a|\nfn f() {}", False, True),
    ],
)
def test_offsets_in_strings_and_comments(language, marked, string, comment):
    text, offset = at(marked)
    tree = parse(text, language)
    assert (syntax.in_string(tree, offset), syntax.in_comment(tree, offset)) == (string, comment)


def test_a_large_file_is_read_quickly():
    text = "".join(f"def f{n}(a, b=({n}, 'é')):\n    return g(a)[{n}]\n\n" for n in range(2000))

    def read(attempt: int) -> None:
        syntax.in_string(parse(f"{text}{attempt}\n", "python"), len(text) // 2)

    assert takes_less(1.0, read)


def test_a_long_parse_ends_once_it_is_stopped():
    """Ambiguous C++ costs the parser hundreds of times as much as other code."""
    polls = 0

    def stop():
        nonlocal polls
        polls += 1
        return polls > 5

    with pytest.raises(syntax.ParsingStopped):
        parse("A<" * 400_000, "cpp", stop)
    assert polls == 6
    tree = parse("x = 1\n" * 10_000, "python")
    with pytest.raises(syntax.ParsingStopped):
        tree.replaced(0, 0, "y = 2\n", lambda: True)


def test_a_parse_that_takes_too_much_work_has_no_tree(monkeypatch):
    monkeypatch.setattr(syntax, "MAX_WORK", 10)
    text = "A<" * 10_000
    assert parse(text, "cpp") is None
    with pytest.raises(syntax.ParsingStopped):
        parse("x;\n" * 10_000, "cpp").replaced(0, 0, text)
