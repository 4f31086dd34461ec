"""Filled texts, diffs, and files written without loss."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from engine.errors import InputError
from infill.cli import text_edits
from infill.request import Hole


def test_holes_are_filled_in_any_order() -> None:
    fillings = [(Hole(4, 6), "Z"), (Hole(0, 0), "A"), (Hole(2, 3), "")]
    assert text_edits.apply("012345", fillings) == "A013Z"


@pytest.mark.parametrize(
    ("before", "after"),
    [("a\nb\nc\n", "a\nB\nc\n"), ("a\nb", "a\nc"), ("a", "a\n"), ("", "new\n"), ("a\r\nb\r\n", "a\r\nX\r\nb\r\n")],
)
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_applies_the_diff(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(before.encode())
    diff = text_edits.unified_diff(before, after, "file.txt")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff.encode(), check=True)
    assert file.read_bytes() == after.encode()


def test_equal_texts_give_an_empty_diff() -> None:
    assert text_edits.unified_diff("a\n", "a\n", "x") == ""


def test_writing_keeps_mode_byte_order_mark_and_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    file.chmod(0o751)
    source = text_edits.read_source(file)
    assert source.text == "one\r\ntwo"
    text_edits.write_in_place(source, "one\r\nnew\r\ntwo")
    assert file.read_bytes() == b"\xef\xbb\xbfone\r\nnew\r\ntwo"
    assert stat.S_IMODE(file.stat().st_mode) == 0o751
    assert os.listdir(tmp_path) == ["file.py"]


def test_a_symbolic_link_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.py", tmp_path / "link.py"
    target.write_text("old")
    link.symlink_to(target)
    text_edits.write_in_place(text_edits.read_source(link), "new")
    assert link.is_symlink() and target.read_text() == "new"


def test_a_file_that_has_changed_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("old")
    source = text_edits.read_source(file)
    file.write_text("edited")
    with pytest.raises(InputError, match="has changed since it was read"):
        text_edits.write_in_place(source, "new")
    assert file.read_text() == "edited"


def test_a_failed_write_leaves_only_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.py"
    file.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        text_edits.write_in_place(text_edits.read_source(file), "new")
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["a.py"]


def test_a_file_that_cannot_be_read_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    latin = tmp_path / "latin.py"
    latin.write_bytes(b"x\n# caf\xe9\n")
    with pytest.raises(InputError, match=r"not UTF-8 text \(line 2\); convert"):
        text_edits.read_source(latin)
    with pytest.raises(InputError, match="no file"):
        text_edits.read_source(tmp_path / "absent.py")
    with pytest.raises(InputError, match="is a folder"):
        text_edits.read_source(tmp_path)
