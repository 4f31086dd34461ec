"""Texts with completions put in, diffs, and files written without loss."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from engine.errors import InputError
from infill.cli import text_edits as edit
from infill.request import Hole


def test_holes_are_filled_from_both_ends_of_the_text() -> None:
    fillings = [(Hole(4, 6), "Z"), (Hole(0, 0), "A"), (Hole(2, 3), "")]
    assert edit.apply("012345", fillings) == "A013Z"


@pytest.mark.parametrize(
    ("before", "after"),
    [("a\nb\nc\n", "a\nB\nc\n"), ("a\nb", "a\nc"), ("a", "a\n"), ("", "new\n"), ("a\r\nb\r\n", "a\r\nX\r\nb\r\n")],
)
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_applies_the_diff(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(before.encode())
    diff = edit.unified_diff(before, after, "file.txt")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff.encode(), check=True)
    assert file.read_bytes() == after.encode()


def test_no_difference_gives_an_empty_diff() -> None:
    assert edit.unified_diff("a\n", "a\n", "x") == ""


def test_writing_keeps_mode_mark_and_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    file.chmod(0o751)
    source = edit.read_source(file)
    assert source.text == "one\r\ntwo"
    edit.write_in_place(source, "one\r\nnew\r\ntwo")
    assert file.read_bytes() == b"\xef\xbb\xbfone\r\nnew\r\ntwo"
    assert stat.S_IMODE(file.stat().st_mode) == 0o751
    assert os.listdir(tmp_path) == ["file.py"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.py", tmp_path / "link.py"
    target.write_text("old")
    link.symlink_to(target)
    edit.write_in_place(edit.read_source(link), "new")
    assert link.is_symlink() and target.read_text() == "new"


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("old")
    source = edit.read_source(file)
    file.write_text("edited")
    with pytest.raises(InputError, match="changed by someone else"):
        edit.write_in_place(source, "new")
    assert file.read_text() == "edited"


def test_a_failure_while_writing_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.py"
    file.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        edit.write_in_place(edit.read_source(file), "new")
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["a.py"]


def test_what_is_no_text_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    latin = tmp_path / "latin.py"
    latin.write_bytes(b"x\n# caf\xe9\n")
    with pytest.raises(InputError, match=r"not UTF-8 text \(line 2\); convert"):
        edit.read_source(latin)
    with pytest.raises(InputError, match="no file"):
        edit.read_source(tmp_path / "absent.py")
    with pytest.raises(InputError, match="is a folder"):
        edit.read_source(tmp_path)
