"""What a completion repeats of the text after the hole: examples, and every kind of file with holes cut into it."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from infill.code.languages import detect
from infill.code.overlap import repeats_closers, until_next_line, without_overlap

ROOT = Path(__file__).parents[3]
SAMPLES = Path(__file__).parent / "samples"
FILES = (
    ROOT / "infill/code/indentation.py",
    ROOT / "editors/vscode/src/commands.ts",
    ROOT / "editors/vscode/package.json",
    ROOT / "editors/nvim/lua/gesso/commands.lua",
    ROOT / "editors/nvim/lua/gesso/server.lua",
    ROOT / ".pre-commit-hooks.yaml",
    ROOT / "pyproject.toml",
    ROOT / "README.md",
    ROOT / "check",
    *sorted(SAMPLES.iterdir()),
)
TOKEN = re.compile(r"\w+|[ \t]+|\n|([^\w\s])\1*")
HOLES = 150  # per file


@pytest.mark.parametrize(
    ("before", "text", "after", "language", "kept"),
    [
        ("f(", "x)", ")\n", "python", "x"),
        ("f(g(", "x)", ")\n", "python", "x)"),
        ("foo(\n    a", "b, c)", "\n)\n", "python", "b, c"),
        ("x = (\n    f(1", "1, 2)", "\n)\n", "python", "1, 2)"),
        ("foo(bar(\n    a,\n    ", "b, c)", ")\n", "python", "b, c)"),
        ("if (a) {\n  ", "b();\n}", "\n\nfoo\n", "javascript", "b();\n}"),
        ("namespace x {\nint f() {\n  ", "return 1;\n}", "\n}  // namespace x\n", "cpp", "return 1;\n}"),
        ("notify(table.concat", '(parts, ", "))', ', ", "))\n', "lua", "(parts"),
        ("x = a", ' else ["", ""]', ', ""]\n', "python", ' else [""'),
        ("x = strings.Split(", 'v, ",")', ', ",")\n', "go", "v"),
        ("x = s.replace(", "/a/, ''));", ", ''));\n", "javascript", "/a/"),
        ("x = [", "[[], []]", ", []]\n", "python", "[[], []]"),
        ("x = f(g(", 'a, "")', ', "")\n', "python", 'a, "")'),
        ("A\n```rust\nf(", "x\n)\n```", "\n)\n```\n", "markdown", "x"),
        ('def f():\n    """One', '."""', '"""\n    return 1\n', "python", "."),
        ('"""One', '.\n"""', '\n"""\n', "python", "."),
        ("f(", '"""', '"""\nx\n""")\n', "python", '"""'),
        ("x = s.replace(/\"/g, '", "a'", "');\n", "javascript", "a"),
        ('x = s.replace(/"/g, "', 'a"', '");\n', "javascript", "a"),
        ("x = s.split(/['`]/)[0] + '", "a'", "';\n", "tsx", "a"),
        ("const QUOTE = /", "'[^", "\"']*'/;\n", "javascript", "'[^"),
        ("f(\n  /(?=\\s*\\", "([^)]+\\)\\s*\\{", ")/),\n)\n", "javascript", "([^)]+\\)\\s*\\{"),
        ("f(A, /\\s*\\(", "/)", "),\n", "javascript", "/"),
        ("  // don't\n  /[\"']/,\n  '", "a'", "',\n", "javascript", "a"),
        ("x = sub(/'/, '", "a'", "')\n", None, "a"),
        ("f(\"don't\", '", "a'", "')\n", "python", "a"),
        ("puts \"it's\", '", "a'", "'\n", None, "a"),
        ('f(f\'{a["b"]}\', "', 'c"', '")\n', "python", "c"),
        ("It's \"a, isn", "'t it\"", '"?\n', None, "'t it"),
        ("int A::\n    f() noexcept", " {\n  return 1;", "\n}\n\nint x;\n", "cpp", " {\n  return 1;"),
        ("int A::\n    f() noexcept", " {\n  return 1;\n}", "\n}\n\nint x;\n", "cpp", " {\n  return 1;"),
        (
            "class A {\n  void f(int a,\n         int b)\n      throws E",
            " {\n    g();\n  }",
            "\n  }\n}\n",
            "java",
            " {\n    g();",
        ),
        ("fn f<T>(a: T)\nwhere\n    T: A,\n    T: B", "\n{\n    g();\n}", "\n}\n", "rust", "\n{\n    g();"),
        ("if (a(\n      b) &&\n    c", ") {\n  d();\n}", "\n}\n", "javascript", ") {\n  d();"),
        ("f([\n    {\n        a(", ");\n}", "\n    }\n])\n", "javascript", ");"),
    ],
)
def test_closers_of_the_completion(before: str, text: str, after: str, language: str, kept: str) -> None:
    assert without_overlap(before, text, after, language) == kept


@pytest.mark.parametrize(
    ("before", "text", "after", "language", "kept"),
    [
        ("print(foo(1)\ny = f(", "x)", ")\n", "python", "x"),
        ("show(a.map((x) => ({ id: x ", "})));", "));\n", "javascript", "})"),
        ("show(a.map((x) => ({ id: x ", "})));", ")));\n", "javascript", "}"),
        ("  return a.map((b) => ({ id: b ", "}));", ");\n}\n", "javascript", "})"),
        ("  return a.map((b) => ({ id: b ", "}))", ");\n}\n", "javascript", "})"),
        (
            "function g() {\n  if (x) {\n    y();\n}\nfunction f() {\n  ",
            "return 1;\n}",
            "\n}\n",
            "javascript",
            "return 1;",
        ),
        ("class A {\n  f() {\n    ", "return 1;\n  }", "\n  }\n  h() {\n    x(;\n}\n", "javascript", "return 1;"),
    ],
)
def test_closers_in_a_file_that_is_already_unbalanced(
    before: str, text: str, after: str, language: str, kept: str
) -> None:
    assert repeats_closers(before, text, after, language)
    assert without_overlap(before, text, after, language) == kept
    assert not repeats_closers(before, kept, after, language)


@pytest.mark.parametrize(
    ("before", "text", "after", "language", "kept"),
    [
        ('<div class="', 'foo"', '">\n', None, "foo"),
        ('<div class="', 'foo">', '">\n', None, "foo"),
        ("<div ", 'class="foo">', ">\n", None, 'class="foo"'),
        ("<!-- a", " -->", " -->\n", None, " -->"),
        ("<b>", "x</b>", "</b> bar</p>\n", None, "x"),
        ('x = """', 'Doc."""', '"""\n', "python", "Doc."),
        ('x = "', 'a" + "', '";\n', "javascript", 'a" + "'),
        ("for (", "i = 0;", ";)\n", "c", "i = 0;"),
        ("x = ", "1;", ";\n", "c", "1"),
        ("foo(", "a,", ", b)\n", "python", "a"),
        ("a,", "b,", ",c\n", None, "b,"),
    ],
)
def test_quotes_tags_and_ends_of_statements(before: str, text: str, after: str, language: str, kept: str) -> None:
    assert without_overlap(before, text, after, language) == kept


@pytest.mark.parametrize(
    ("text", "after", "kept"),
    [
        ("b();\n\n", "\n}\nfoo\n", "b();"),
        ("b();\n", "  \n}\n", "b();"),
        ("a  \n", "\n", "a  "),
        ("a \n", " \n", "a"),
        ("a ", " \n", "a"),
        ("b();\n}\n\n\n", "def", "b();\n}\n\n\n"),
        ("b();\n", "", "b();\n"),
        ("\n", "\n", "\n"),
        ("a ", " b", "a"),
    ],
)
def test_blank_lines(text: str, after: str, kept: str) -> None:
    assert without_overlap("", text, after, None) == kept


def test_whole_lines_in_place_of_others_end_in_a_line_break() -> None:
    assert without_overlap("", "x\ny\n", "\nz\n", None, replaced="a\nb\n") == "x\ny\n"
    assert without_overlap("", "x\ny\nz\n", "z\n", None, replaced="a\nb\n") == "x\ny\n"


@pytest.mark.parametrize(
    ("text", "after", "kept"),
    [
        ("a if b else c", " else c\n", "a if b"),
        ("a\n", "a\n", "a\n"),
        ("    a = 1\n    return a\n", "    return a\n", "    a = 1\n"),
        ("    }\n", "    }\n", "    }\n"),
        ("x\n    y = 2", "\n    y = 2\n    z = 3\n", "x"),
        ("x\n    y = 2\n    z", "\n    y = 2\n    z = 3\n", "x"),
        ("self.total, self.count_of_all", ", self.count_of_all, 3)\n", "self.total"),
        ("one, one", ", one, one\n", "one, one"),
        ("foo", "o = 1\n", "foo"),
    ],
)
def test_words(text: str, after: str, kept: str) -> None:
    assert without_overlap("", text, after, "python") == kept


def test_a_generated_block_ends_before_the_next_line_of_the_file() -> None:
    assert until_next_line("def f():\n", "    a\n    b\n    other\n", "    b\n    c\n") == "    a\n"
    assert until_next_line("def f():\n    ", "a\n    b\n    other", "\n    b\n    c\n") == "a\n"
    assert until_next_line("", "if a:\n    b\nc\n", "    b\n") == "if a:\n    b\nc\n"
    assert until_next_line("x = ", "a\nb\n", "\nb\n") == "a\nb\n"


def _is_ambiguous(text: str, after: str) -> bool:
    """Whether the text itself ends as what follows begins, so that nobody can know which of both is meant."""
    return any(text.endswith(after[:length]) and re.search(r"[^)\]}]", after[:length]) for length in range(1, 200))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_true_text_gives_the_file_with_and_without_what_follows(file: Path) -> None:
    source = file.read_text("utf-8")
    language = detect(str(file), source.partition("\n")[0])
    starts = [*(match.start() for match in TOKEN.finditer(source)), len(source)]
    chance, wrong, holes = random.Random(file.name), [], 0
    while holes < HOLES:
        first = chance.randrange(len(starts) - 2)
        last = min(len(starts) - 2, first + chance.choice((1, 2, 3, 5, 8, 13, 20, 40)))
        before, text, after = source[: starts[first]], source[starts[first] : starts[last]], source[starts[last] :]
        if not text.strip() or text[-1].isspace() or _is_ambiguous(text, after):
            continue
        holes += 1
        lines = after.split("\n")
        offered = {text, text + lines[0], text + "\n".join(lines[:4])}
        offered |= {text + blank[0] for blank in [re.match(r"\s*\n", after)] if blank}
        offered |= {text + closers[0] for closers in [re.match(r"[)\]}]+", after)] if closers}
        wrong += [
            (before[-40:], one, after[:40]) for one in offered if without_overlap(before, one, after, language) != text
        ]
        if repeats_closers(before, text, after, language):
            wrong.append((before[-40:], text, after[:40]))
    assert len(wrong) <= HOLES // 100, (
        wrong
    )  # whether a bracket that the text opens is closed by what follows is a guess
