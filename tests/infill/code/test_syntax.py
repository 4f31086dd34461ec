"""Trees in character offsets, and what the syntax says about a cursor, marked here by «|»."""

import sys
import threading
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infill.code import syntax
from infill.code.languages import LANGUAGES
from infill.code.syntax import Span, error_nodes, error_score, parse
from tests.infill.marked import at


def names(marked, language):
    text, offset = at(marked)
    return [(scope.kind, scope.name) for scope in syntax.enclosing_scopes(parse(text, language), offset)]


UGLY = st.text(st.sampled_from("x(\n\t =é😀\ud800\udc00\r\f'\":#{}1\x00"), max_size=60)


def test_an_unknown_language_or_a_huge_text_has_no_tree():
    assert parse("x", None) is None
    assert parse("x", "cobol") is None
    assert parse("x" * (syntax.MAX_PARSE_CHARS + 1), "python") is None


@given(UGLY, st.sampled_from(sorted(LANGUAGES)))
@settings(deadline=None)
def test_any_text_parses_and_every_node_lies_within_it(text, language):
    tree = parse(text, language)
    for span in error_nodes(tree):
        assert 0 <= span.start <= span.end <= len(text)
    for offset in range(len(text) + 1):
        assert tree._character(tree.byte(offset)) == offset
    for offset in (0, len(text) // 2, len(text)):
        syntax.enclosing_scopes(tree, offset)
        syntax.statement_at(tree, offset)
        syntax.in_string(tree, offset)
        syntax.in_comment(tree, offset)


@given(st.integers(0, 3000), st.sampled_from(["é", "😀", "\ud800", "x"]))
@settings(max_examples=25, deadline=None)
def test_offsets_count_characters_far_into_a_text(length, character):
    text = "#" + character * length + "\nx = = 1\n"
    (error,) = error_nodes(parse(text, "python"))
    assert text[error.start : error.end] == "="


@given(UGLY, UGLY, st.data())
@settings(deadline=None)
def test_a_replaced_tree_is_the_tree_of_the_new_text(text, replacement, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    edited = parse(text, "javascript").replaced(start, end, replacement)
    assert edited.text == text[:start] + replacement + text[end:]
    if not edited.root.has_error:
        assert str(edited.root) == str(parse(edited.text, "javascript").root)


@given(UGLY, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9), UGLY), max_size=5))
@settings(deadline=None)
def test_edits_are_followed_one_after_the_other(text, edits):
    tree, expected = parse(text, "javascript"), text
    for start, length, replacement in edits:
        expected = expected[:start] + replacement + expected[start + length :]
    edited = tree.edited([(start, start + length, replacement) for start, length, replacement in edits])
    assert edited.text == expected
    fresh = parse(expected, "javascript")
    if not fresh.root.has_error:
        assert str(edited.root) == str(fresh.root)


def test_after_edits_every_node_has_its_place():
    def places(tree):
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
    assert places(edited) == places(parse(text, "python"))


def test_the_text_of_a_node():
    tree = parse("x = 'é😀'\nclass Ünit: pass\n", "python")
    assert [tree.part(node) for node in tree.root.children] == ["x = 'é😀'", "class Ünit: pass"]


@pytest.mark.parametrize("lines", [100, 10_000])
def test_what_was_parsed_is_let_go(lines: int) -> None:
    text = "value = compute(first, second)\n" * lines
    tree = parse(text, "python")
    assert tree

    def parses() -> None:
        for number in range(10):
            parse(f"{text}{number}\n", "python")
            tree.replaced(0, 5, f"value_{number}")

    tracemalloc.start()
    try:
        parses()
        before = tracemalloc.get_traced_memory()[0]
        parses()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_other_threads_run_while_a_long_text_is_parsed():
    """A parser that keeps the interpreter to itself would stop the editor's server for as long as it parses."""
    begun, turns, ended = threading.Event(), [], threading.Event()

    def parsing():
        begun.set()
        parse("def f(a, b):\n    return [a, b, 'hello']\n" * 10_000, "python")
        ended.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        thread = threading.Thread(target=parsing)
        thread.start()
        begun.wait()
        while not ended.is_set():
            turns.append(time.sleep(0))
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
    ("language", "marked", "expected"),
    [
        ("python", "class A:\n    def f(self):\n        x = 1|\n", [("class", "A"), ("method", "f")]),
        ("python", "class A:\n    def f(self):\n        |\n\nx = 1\n", [("class", "A"), ("method", "f")]),
        ("python", "class A:\n    def f(self):\n        y = 1\n    |\nx = 1\n", [("class", "A")]),
        ("python", "def f():\n    x = 1\n|\n    y = 2\n", [("function", "f")]),
        ("python", "def f():\n    x = 1\n\n|\ny = 2\n", []),
        ("python", "def f():\r\n    é = '😀'\r\n    |\r\n", [("function", "f")]),
        ("python", "class A:\n    def f(self):\n        x = foo(\n\n    def g(self):\n        return| 1\n",
         [("class", "A"), ("method", "g")]),
        ("javascript", "class A { f(x) { return `a${x|}b` } }", [("class", "A"), ("method", "f")]),
        ("javascript", "export const g = (a) => {|}\n", [("function", "g")]),
        ("typescript", "namespace N { interface I { | } }", [("namespace", "N"), ("interface", "I")]),
        ("tsx", "function F() { return <p>{|}</p> }", [("function", "F")]),
        ("go", "package a\nfunc (s *S) F() error {\n\t|\n}\n", [("method", "F")]),
        ("go", "package a\ntype S struct {\n\ta int|\n}\n", [("class", "S")]),
        ("rust", "impl X for Y { fn f(&self) -> u8 { 1| } }", [("class", "Y"), ("method", "f")]),
        ("java", "class A { int f() { return 1;| } }", [("class", "A"), ("method", "f")]),
        ("c", "static int *f(int a)\n{\n  |\n}\n", [("function", "f")]),
        ("c", "int f(void) { struct s x; |}\n", [("function", "f")]),
        ("cpp", "namespace n { class A { int f() const {|} }; }",
         [("namespace", "n"), ("class", "A"), ("method", "f")]),
    ],
)  # fmt: skip
def test_enclosing_scopes(language, marked, expected):
    assert names(marked, language) == expected


def test_a_header_holds_decorators_and_signature_but_no_comment_and_no_body():
    text = "@wraps(x)\ndef f(a,\n      b=':'):  # why\n    # how\n    return a\n"
    (scope,) = syntax.enclosing_scopes(parse(text, "python"), len(text) - 3)
    assert text[slice(*scope.header_span)] == "@wraps(x)\ndef f(a,\n      b=':'):"
    text = "export function f(a: T): U {\n  return 1\n}\n"
    (scope,) = syntax.enclosing_scopes(parse(text, "typescript"), 33)
    assert text[slice(*scope.header_span)] == "export function f(a: T): U"


def test_statement_at():
    text, offset = at("if é:\n    x = f(|1)\n\ny = 2\n")
    tree = parse(text, "python")
    assert text[slice(*syntax.statement_at(tree, offset))] == "x = f(1)"
    assert syntax.statement_at(tree, text.index("\n\n") + 1) is None
    assert text[slice(*syntax.statement_at(tree, len(text) - 1))] == "y = 2"


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
def test_in_string_and_in_comment(language, marked, string, comment):
    text, offset = at(marked)
    tree = parse(text, language)
    assert (syntax.in_string(tree, offset), syntax.in_comment(tree, offset)) == (string, comment)


def test_a_large_file_is_read_quickly():
    text = "".join(f"def f{n}(a, b=({n}, 'é')):\n    return g(a)[{n}]\n\n" for n in range(2000))
    started = time.perf_counter()
    tree = parse(text, "python")
    middle = len(text) // 2
    syntax.enclosing_scopes(tree, middle)
    assert time.perf_counter() - started < 1.0
