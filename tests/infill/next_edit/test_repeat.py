"""Replacements by hand, and the others like them."""

from __future__ import annotations

from tests.infill.next_edit.asking import changed_lines, proposals

TESTS = """\
self.assertEqual(a, b)
self.assertEqual(c.d, e(1))
self.assertEqual(f, g, "message")
self.assertEqual(h[0], "i")
self.assertTrue(a, b)
"""
FIRST = ("self.assertEqual(a, b)", "assert a == b")
SECOND = ("self.assertEqual(c.d, e(1))", "assert c.d == e(1)")


def test_two_replacements_are_a_pattern() -> None:
    assert changed_lines(TESTS, FIRST, SECOND) == ['assert h[0] == "i"']
    assert not proposals(TESTS, FIRST)[1]


def test_two_different_replacements_are_none() -> None:
    assert not proposals(TESTS, FIRST, ("self.assertEqual(c.d, e(1))", "assert e(1) == c.d"))[1]


def test_the_same_code_is_repeated_after_one_replacement() -> None:
    code = "a = make(self.size, 1)\nb = make(self.size, 1)\nc = make(self.size, 2)\n"
    assert changed_lines(code, ("make(self.size, 1)", "build(self.size)")) == ["b = build(self.size)"]


def test_an_argument_is_added_to_the_other_calls() -> None:
    code = "open(a)\nopen(b.c)\nopen(d())\nopen(e, 'w')\n"
    found = changed_lines(code, ("open(a)", "open(a, encoding=x)"), ("open(b.c)", "open(b.c, encoding=x)"))
    assert found == ["open(d(), encoding=x)"]


def test_what_is_wrapped_already_is_left_alone() -> None:
    code = "f(get(a))\nf(get(b))\nf(wrap(get(c)))\nf(get(d))\n"
    assert changed_lines(code, ("get(a)", "wrap(get(a))"), ("(get(b)", "(wrap(get(b))")) == ["f(wrap(get(d)))"]


def test_a_member_and_a_variable_of_one_scope() -> None:
    code = "x.old(1)\ny.old(2)\nz.old(3)\n"
    assert changed_lines(code, ("x.old", "x.new"), ("y.old", "y.new")) == ["z.new(3)"]
    code = "def f(a, b):\n    use(a)\n    use(a)\n    use(a)\ndef g(a):\n    use(a)\n"
    assert changed_lines(code, ("use(a)", "use(b)"), ("use(a)", "use(b)")) == ["    use(b)"]


def test_other_languages() -> None:
    script = "var a = x.indexOf(1) !== -1;\nvar b = y.z.indexOf(q) !== -1;\nvar c = w().indexOf('e') !== -1;\n"
    edits = ("x.indexOf(1) !== -1", "x.includes(1)"), ("y.z.indexOf(q) !== -1", "y.z.includes(q)")
    assert changed_lines(script, *edits, language="typescript") == ["var c = w().includes('e');"]
    go = "package m\n\nfunc f() {\n\tlog.Printf(a, b)\n\tlog.Printf(c.d, e)\n\tlog.Printf(g(), h)\n}\n"
    edits = ("log.Printf(a, b)", "t.Logf(a, b)"), ("log.Printf(c.d, e)", "t.Logf(c.d, e)")
    assert changed_lines(go, *edits, language="go") == ["\tt.Logf(g(), h)"]


def test_one_example_is_enough_only_for_another_form_of_the_same() -> None:
    code = "a: Optional[str]\nb: Optional[str]\nc: list[str]\nd: list[str]\nself.x = 1\nself.x = 2\n"
    assert changed_lines(code, ("Optional[str]", "str | None")) == ["b: str | None"]
    assert not proposals(code, ("list[str]", "Sequence[re.Pattern[str]]"))[1]
    assert not proposals(code, ("self.x", "wrap(self.x)"))[1]


def test_docstrings_and_comments_are_not_repeated() -> None:
    code = 'def f():\n    """Load it.\n\n    More.\n    """\n\ndef g():\n    """Load it.\n\n    More.\n    """\n'
    assert not proposals(code, ("More.", "More of it."))[1]
    code = "reducer = {\n    one: 1,\n}\nother = {\n    one: 1,\n}\nmake(\n    one,\n)\nmake(\n    one,\n)\n"
    assert not proposals(code, ("make(\n    one,", "make(\n    # first\n    one,"))[1]


def test_one_example_is_not_enough_for_values() -> None:
    code = 'def f(x):\n    if x:\n        return ""\n    return 1\n\ndef g():\n    return ""\n'
    assert not proposals(code, ('return ""', "return []"))[1], "only the keyword is the same"
    call = "check(\n    self.one,\n    self.two,\n)\n"
    assert not proposals(2 * call, (call, "check(\n    self.one,\n    self.two,\n    build=None,\n)\n"))[1]
    assert not proposals(2 * call, (call, "check(\n    self.one,\n)\n"))[1]
