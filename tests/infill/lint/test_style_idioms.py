"""Idioms that differ from the rest of the file, and those that are not reported."""

import pytest

from infill.code.syntax import parse
from infill.lint.kinds import STYLE
from infill.lint.style import find_style
from infill.lint.style_idioms import unusual_idioms
from infill.lint.symbols import SymbolTable

NONES = "if a is None or b is None or c is not None: pass\n"
INS = "x = a not in b, c not in d, e not in f\n"
FORMATS = 'x = f"{a}", f"{b}", f"{c}", f"{d}", f"{e}"\n'
SIGNS = "a, b, c, d = {}, {}, [], []\n"
DOUBLE = "x = [" + ", ".join(f'"{number}"' for number in range(24)) + "]\n\n\n\n\n"


def found(text: str, language: str = "python") -> dict[str, str]:
    tree = parse(text, language)
    assert tree is not None and not tree.root.has_error
    return {
        text[one.edit.start : one.edit.end]: one.edit.replacement for one in unusual_idioms(tree, SymbolTable(tree))
    }


@pytest.mark.parametrize(
    ("code", "old", "new"),
    [
        (NONES + "if value == None: pass\n", "value == None", "value is None"),
        (NONES + "while a and not (b.c != None): pass\n", "b.c != None", "b.c is not None"),
        (INS + "if not key in known: pass\n", "not key in known", "key not in known"),
        (INS + "y = not (key in known) or z\n", "not (key in known)", "key not in known"),
        (
            FORMATS + 'y = "{} of {}".format(done, a.total)\n',
            '"{} of {}".format(done, a.total)',
            'f"{done} of {a.total}"',
        ),
        (FORMATS + "y = '{n!r:>9}{{}}'.format(n=f(x))\n", "'{n!r:>9}{{}}'.format(n=f(x))", "f'{f(x)!r:>9}{{}}'"),
        (FORMATS + 'y = "%s: %r, 5%%" % (a, b[0])\n', '"%s: %r, 5%%" % (a, b[0])', 'f"{a}: {b[0]!r}, 5%"'),
        (SIGNS + "found = dict()\n", "dict()", "{}"),
        (SIGNS + "def f():\n    return list()\n", "list()", "[]"),
        (DOUBLE + "y = 'third'\n", "'third'", '"third"'),
        (DOUBLE + "y = b'third'\n", "b'third'", 'b"third"'),
    ],
)
def test_unusual_idioms_are_found(code: str, old: str, new: str) -> None:
    assert found(code) == {old: new}


@pytest.mark.parametrize(
    "code",
    [
        NONES + "rows = query.filter(User.name == None)\n",  # `==` is overloaded
        NONES + "mask = frame == None\n",
        NONES + "if value == None or other == None: pass\n",  # two of five are no exception
        FORMATS + 'y = "%d of %s" % (a, b)\n',  # `%d` rounds floats
        FORMATS + 'y = "%s" % a\n',  # it may be a tuple
        FORMATS + 'y = "{}".format(a["key"])\n',
        FORMATS + 'y = "{}{}".format(*a)\n',
        FORMATS + 'y = "{0}{0}".format(f(x))\n',  # `f(x)` would run twice
        FORMATS + 'y = "{:{}}".format(a, b)\n',
        FORMATS + 'y = "{a.b}".format(a=a)\n',
        FORMATS + "y = template.format(a)\n",
        SIGNS + "found = dict(a=1)\n",
        SIGNS + "for kind in (list(), MyList()): pass\n",  # the type matters
        "def dict(): ...\n" + SIGNS + "found = dict()\n",
        DOUBLE + "y = 'say \"third\"'\n",
        DOUBLE + "y = 'third' + ' = \"'\n",
        DOUBLE + "def f():\n    'What it does.'\n",
        DOUBLE + "y = 'a sentence of its own'\n",
        DOUBLE + "y = f\"{a['third']}\"\n",
        "x = '1', '2'\ny = \"third\"\n",  # no convention
    ],
)
def test_other_code_is_not_reported(code: str) -> None:
    assert found(code) == {}


def test_quotes_of_javascript() -> None:
    text = DOUBLE + "let y = 'third', z = `fourth`;\n"
    assert found(text, "javascript") == {"'third'": '"third"'}
    assert found(text.replace("'third'", "<p id='third'/>"), "tsx") == {}
    assert found("import a from 'third';\n" + DOUBLE, "javascript") == {}
    assert found('package p\nvar x = "1"\n', "go") == {}


def test_codes_ranges_and_comments_limit_the_edits() -> None:
    text = (
        NONES + INS + "if value == None: pass\nif not key in known: pass  # noqa: E713\n" + SIGNS + "found = dict()\n"
    )
    tree = parse(text, "python")
    assert tree is not None

    def codes(selected: set[str], ranges: list[tuple[int, int]]) -> list[str]:
        return [one.edit.code for one in find_style(tree, SymbolTable(tree), selected, ranges)]

    assert codes(set(STYLE), [(0, len(text))]) == ["style-comparison", "style-literal"]
    assert codes({"style-literal"}, [(0, len(text))]) == ["style-literal"]
    assert codes(set(STYLE), [(0, text.index("if value"))]) == codes(set(), [(0, len(text))]) == []
