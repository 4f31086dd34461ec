"""Changes between releases, and how lint on them is counted."""

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from bench.lint.releases import Outcome, one_line_changes, proposing_kinds, read_package, releases_report
from engine.errors import InputError


def test_changes_are_small_and_in_code() -> None:
    old = {"a.py": "def f(a, b):\n    x = 1\n    return a < b\n", "b.py": "x = 1\n", "gone.py": "x = 1\n"}
    new = {"a.py": "def f(a, b):\n    x = 1\n    return a <= b\n", "b.py": "x = 1  # one\n"}
    (change,) = one_line_changes(old, new)
    assert (change.path, change.number, change.lines) == ("a.py", 3, ("    return a < b", "    return a <= b"))
    assert not [*one_line_changes({"a.py": "x = 'a'\n"}, {"a.py": "x = 'b'\n"})]
    assert not [*one_line_changes({"a.py": "x = 1\n"}, {"a.py": "y.z(1, 2, 3, 4)\n"})]


def test_kinds_that_propose_a_change() -> None:
    old = {"a.py": "def f(left, right):\n    g(left, right)\n    return left + left\n"}
    for new, codes in (
        ("return left + right", ["wrong-name"]),
        ("return left - left", ["wrong-operator"]),
        ("return left + 2 * left", []),
    ):
        (change,) = one_line_changes(old, {"a.py": old["a.py"].replace("return left + left", new)})
        assert proposing_kinds(change) == codes
    (change,) = one_line_changes(old, {"a.py": old["a.py"].replace("g(left, right)", "g(right, left)")})
    assert proposing_kinds(change) == ["swapped-arguments"]


def test_outcomes_are_counted_by_kind() -> None:
    right = Outcome("a.py", "x", "y", ["wrong-name"], ["wrong-name"], True, [], 1, True)
    missed = replace(right, near=[], right=False, elsewhere=2, reached=False)
    wrong = replace(right, codes=["misspelled"], right=False, near=["wrong-name"], after=["wrong-name"])
    report = releases_report(9, [right, missed, wrong], {"wrong-name", "misspelled"}, {})
    assert [row[1:] for row in report.rows] == [
        ["1", "1", "0", "0", "1"],
        ["2", "1", "1", "1", "0"],
        ["3", "2", "2", "1", "1"],
    ]
    assert "9 one-line changes" in report.notes[0] and "4 other findings" in report.notes[0]


def test_packages_are_read_from_folders_and_archives(tmp_path: Path) -> None:
    folder = tmp_path / "pkg-1.0"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "a.py").write_bytes(b"x = 1\r\n")
    (folder / "README").write_text("no code")
    (folder / "pkg" / "bad.py").write_bytes(b"\xff")
    archive = tmp_path / "pkg-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "pkg-1.0")
    assert read_package(folder) == read_package(archive) == {"pkg/a.py": "x = 1\n"}
    with pytest.raises(InputError, match="as a folder or archive"):
        read_package(tmp_path / "none.tar.gz")
