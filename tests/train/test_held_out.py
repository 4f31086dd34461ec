"""Holes depend on the seed only, lie in code, and are spread over projects."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from engine.errors import InputError
from train.held_out import (
    KINDS,
    HeldOutFile,
    HeldOutHole,
    Neighbourhood,
    cut_holes,
    for_judging,
    hole_spans,
    is_for_calibration,
    read_held_out,
)


@pytest.fixture
def files(corpus: Path) -> list[HeldOutFile]:
    return read_held_out(corpus, ("python", "javascript"))


def test_only_held_out_files_are_read_with_normalized_line_ends(files: list[HeldOutFile]) -> None:
    assert Counter(file.project for file in files) == {"large": 5, "small": 1, "web": 1}
    assert not any("\r" in file.text for file in files)


def test_a_missing_or_damaged_corpus_is_named(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(InputError, match="no corpus"):
        read_held_out(tmp_path, ("python",))
    with pytest.raises(InputError, match="no held-out files in go, rust"):
        read_held_out(corpus, ("python", "go", "rust"))
    (corpus / "files-002.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="files-002"):
        read_held_out(corpus, ("python",))


@pytest.mark.parametrize("kind", KINDS)
def test_holes_depend_on_seed_language_and_kind_only(files: list[HeldOutFile], kind: str) -> None:
    holes = cut_holes(files, "python", kind, 6, seed=3)
    only_python = [file for file in reversed(files) if file.language == "python"]
    assert len(holes) == 6
    assert cut_holes(only_python, "python", kind, 6, seed=3) == holes
    assert cut_holes(files, "python", kind, 4, seed=3) == holes[:4], "a larger count only adds"
    assert cut_holes(files, "python", kind, 6, seed=4) != holes


@pytest.mark.parametrize("kind", KINDS)
def test_before_truth_and_after_make_the_file(files: list[HeldOutFile], kind: str) -> None:
    texts = {(file.project, file.path): file.text for file in files}
    for hole in cut_holes(files, "python", kind, 100, seed=1):
        assert hole.before + hole.truth + hole.after == texts[hole.project, hole.path]
        assert hole.truth.strip() and not hole.truth.endswith("\n")
        assert hole.one_line == (kind not in ("statement", "block"))
        assert not hole.one_line or ("\n" not in hole.truth and len(hole.truth.strip()) <= 100)


@pytest.mark.parametrize("kind", KINDS)
def test_no_hole_touches_a_comment_or_a_docstring(files: list[HeldOutFile], kind: str) -> None:
    for hole in cut_holes(files, "python", kind, 1000, seed=1):
        for words in ("Areas", "lines that", "Of the whole", "comment", "metres"):
            assert words not in hole.truth
        line = hole.before[hole.before.rfind("\n") + 1 :]
        assert "#" not in line and '"""' not in line and "lines that" not in line


def test_projects_take_turns(files: list[HeldOutFile]) -> None:
    holes = cut_holes(files, "python", "line", 10, seed=1)
    assert Counter(hole.project for hole in holes) == {"large": 5, "small": 5}
    assert len({hole.path for hole in holes if hole.project == "large"}) == 5, "and so do files"
    every = cut_holes(files, "python", "line", 10_000, seed=1)
    assert len(every) == len({(hole.path, len(hole.before)) for hole in every}), "no line is cut twice"
    assert Counter(hole.project for hole in every)["large"] > Counter(hole.project for hole in every)["small"]


def test_where_lines_are_cut() -> None:
    text = "    total = first + second\n" * 2
    file = HeldOutFile("p", "p.py", "python", text)
    for hole in cut_holes([file], "python", "rest of line", 9, seed=2):
        line = hole.before[hole.before.rfind("\n") + 1 :]
        assert len(line) >= 6 and hole.after.startswith("\n") and len(hole.truth) >= 3
    for seed in range(20):
        for hole in cut_holes([file], "python", "token span", 9, seed):
            joined = hole.before[-1:] + hole.truth[:1]
            assert not joined.isalnum(), "spans begin and end with words"
            assert not (hole.truth[-1:] + hole.after[:1]).isalnum()


STATEMENTS = {
    "python": ("def f():\n    x = call(\n        1,\n    )\n    y = 2  # why\n    if x:\n        return y\n", 2),
    "javascript": ("function f() {\n  const x = 1;\n  if (x) {\n    g(x);\n  }\n  h(); i();\n}\n", 2),
    "typescript": ("class A {\n  f(): number {\n    let x: number = 1;\n    return x;\n  }\n}\n", 2),
    "go": ("package a\n\nfunc f() int {\n\tx := 1\n\tx++\n\treturn x\n}\n", 3),
    "rust": ("#[inline]\nfn f() -> u8 {\n    let x = 1;\n    if x > 0 {\n        g();\n    }\n    x\n}\n", 2),
    "java": ("package a;\nclass A {\n    int f() {\n        int x = 1;\n        return x;\n    }\n}\n", 2),
    "c": ("#include <a.h>\nint f(void) {\n    int x = 1;\n    for (;;) {\n        x++;\n    }\n    return x;\n}\n", 4),
    "cpp": ("namespace n {\nint f() {\n  auto x = 1;\n  return x;\n}\n}\n", 2),
}


@pytest.mark.parametrize("language", STATEMENTS)
def test_statements_have_their_own_lines_and_contain_no_other(language: str) -> None:
    text, count = STATEMENTS[language]
    found = [text[span.start : span.end] for span in hole_spans(text, language, "statement")]
    assert len(found) == count, found
    if language == "python":
        assert found == ["    x = call(\n        1,\n    )", "        return y"]
    if language == "rust":
        assert found == ["    let x = 1;", "        g();"]


BODIES = {
    "python": ("def f(x):\n    a = x\n\n    return a\n", "    a = x\n\n    return a"),
    "javascript": ("const f = () => {\n  g();\n  h();\n};\n", "  g();\n  h();"),
    "typescript": ("class A {\n  f() {\n    g();\n    h();\n  }\n}\n", "    g();\n    h();"),
    "go": ("package a\n\nfunc f() {\n\tg()\n\th()\n}\n", "\tg()\n\th()"),
    "rust": ("fn f() {\n    let x = 1;\n    x\n}\n", "    let x = 1;\n    x"),
    "java": ("class A {\n    A() {\n        g();\n        h();\n    }\n}\n", "        g();\n        h();"),
    "c": ("int f(void)\n{\n    g();\n    return 1;\n}\n", "    g();\n    return 1;"),
    "cpp": ("struct S { int a; };\nint f() {\n  g();\n  return 1;\n}\n", "  g();\n  return 1;"),
}


@pytest.mark.parametrize("language", BODIES)
def test_a_block_is_the_inside_of_a_body(language: str) -> None:
    text, body = BODIES[language]
    assert [text[span.start : span.end] for span in hole_spans(text, language, "block")] == [body]


@pytest.mark.parametrize("lines, fits", [(1, False), (2, True), (12, True), (13, False)])
def test_a_block_has_two_to_twelve_lines(lines: int, fits: bool) -> None:
    text = "def f():\n" + "    call()\n" * lines
    assert bool(hole_spans(text, "python", "block")) == fits


def test_a_block_has_at_most_four_hundred_characters() -> None:
    for length, fits in ((180, True), (200, False)):
        assert bool(hole_spans("def f():\n" + f"    {'x' * length}\n" * 2, "python", "block")) == fits


def test_offsets_are_characters_and_not_bytes() -> None:
    text = "größe = '日本😀'\ndef f():\n    weite = 'é'\n    return weite\n"
    assert [text[span.start : span.end] for span in hole_spans(text, "python", "block")] == [
        "    weite = 'é'\n    return weite"
    ]


def _file(path: str, text: str, project: str = "p", language: str = "python") -> HeldOutFile:
    return HeldOutFile(project, path, language, text)


def test_projects_for_calibration_are_not_judged() -> None:
    names = [f"project{number}" for number in range(40)]
    calibrated = [name for name in names if is_for_calibration(name)]
    assert 10 < len(calibrated) < 30
    files = [_file("a.py", "x", project) for project in names]
    files += [_file("a.go", "x", project, "go") for project in calibrated]
    judged = for_judging(files)
    assert {file.project for file in judged if file.language == "python"} == {*names} - {*calibrated}
    assert {file.project for file in judged if file.language == "go"} == {*calibrated}, "go has no other project"


def test_neighbours_are_ranked_by_folder_then_by_shared_names() -> None:
    target = _file("a/own.py", "alpha = beta\ngamma = 1\n")
    files = [
        target,
        _file("b/far_similar.py", "alpha, beta, gamma"),
        _file("b/far.py", "nothing"),
        _file("a/near.py", "nothing"),
        _file("a/near_similar.py", "alpha"),
        _file("a/other.js", "alpha", language="javascript"),
        _file("a/foreign.py", "alpha, beta", project="q"),
    ]
    hole = HeldOutHole("python", "line", "p", target.path, "", "alpha = beta", "\ngamma = 1\n")
    hole_in_names = HeldOutHole("python", "line", "p", target.path, "alpha = beta\n", "gamma = 1", "\n")
    chosen = Neighbourhood(files).of(hole_in_names)
    assert [one.path for one in chosen] == ["a/near_similar.py", "a/near.py", "b/far_similar.py"]
    assert chosen[0].text == "alpha"
    blind = [one.path for one in Neighbourhood(files).of(hole)]
    assert blind == ["a/near.py", "a/near_similar.py", "b/far_similar.py"], "names in the hole do not count"
